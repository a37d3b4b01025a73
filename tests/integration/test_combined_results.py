"""What the results say of studies whose trials are reused, pruned by two objectives, descended or trained in folds."""

from __future__ import annotations

import csv
import io
from typing import Any

import httpx
import pyarrow.parquet as pq

from tests.integration.test_api_lineage import Hands as Generations
from tests.integration.test_api_trials import Hands
from tests.integration.test_external import Outside, external

PLOTS = ["history", "intermediate", "parallel", "slice", "edf", "timeline", "importances", "pareto"]
LATER = ["parent", "first_epoch", "reused_from"]


def rows_of(client: httpx.Client, study_id: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(client.get(f"/v1/studies/{study_id}/export?format=csv").text)))


def test_an_outside_programs_front_with_reused_and_pruned_trials_is_told_whole(service: Any) -> None:
    choices = {"type": "categorical", "choices": [1, 2, 3, 4], "ordered": True}
    definition = external(
        hyperparameters={"x": choices},
        objectives=[{"metric": "loss"}, {"metric": "size"}],
        pruner={"name": "pareto", "options": {"n_startup_trials": 1}},
        execution={"duplicates": "reuse"},
        budget={"trials": 12},
    )
    study = service.client.post("/v1/studies", json=definition).json()
    program = Outside(service.client, study)
    handed: list[int] = []
    while True:
        asked = program.post("/trials:ask")
        assert len(asked["items"]) <= 1
        if not asked["items"]:
            assert asked["retry_after_seconds"] in (0.0, None)
            if asked["retry_after_seconds"] is None:
                break
        for trial in asked["items"]:
            handed.append(trial["number"])
            x = trial["hyperparameters"]["x"]
            # The first is the best in both objectives: what is worse in both is pruned.
            verdict = program.report(trial, 0, loss=float(x), size=float(x))
            state = "PRUNED" if verdict["should_prune"] else "COMPLETE"
            program.tell(trial, state=state, values={} if state == "PRUNED" else {"loss": float(x), "size": float(x)})
    listed = service.client.get(f"/v1/studies/{study['id']}/trials", params={"limit": 100}).json()["items"]
    reused = {trial["number"]: trial["reused_from"] for trial in listed if trial["reused_from"] is not None}
    assert reused
    assert not reused.keys() & set(handed)
    rows = rows_of(service.client, study["id"])
    assert {int(row["number"]): int(row["reused_from"]) for row in rows if row["reused_from"]} == reused
    parquet = service.client.get(f"/v1/studies/{study['id']}/export?format=parquet").content
    table = pq.read_table(io.BytesIO(parquet)).to_pylist()
    assert {row["number"]: row["reused_from"] for row in table if row["reused_from"] is not None} == reused
    for plot in PLOTS:
        assert service.client.get(f"/v1/studies/{study['id']}/plots/{plot}").status_code == 200, plot
    assert service.client.get(f"/v1/studies/{study['id']}/report").status_code == 200
    assert service.client.get(f"/v1/studies/{study['id']}/importances").status_code == 200


def test_an_export_says_whom_a_member_of_a_population_went_on_from(service: Any) -> None:
    options = {"population_size": 2, "interval_epochs": 2}
    study = service.create(sampler={"name": "pbt", "options": options}, training={"epochs": 4})
    hands = Generations(service, study["id"])
    hands.run(hands.reserve(), [None, None], 0)
    hands.run(hands.reserve(), [0, 0], 2)
    rows = rows_of(service.client, study["id"])
    assert [[row[name] for name in LATER] for row in rows] == [["", "0", ""]] * 2 + [["0", "2", ""]] * 2


def test_a_trial_that_trains_in_folds_has_no_curve_until_it_is_compared_by_them(service: Any) -> None:
    folded = {"model": {"family": "mlp"}, "dataset": {"name": "wine"}, "objectives": [{"metric": "val_loss"}]}
    space = {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2}}
    study = service.create(**folded, hyperparameters=space, training={"epochs": 3, "folds": 2})
    hands = Hands(service, study["id"])
    ended, running = hands.start(2, learning_rate=0.005)
    for epoch in range(4):
        hands.report(running, epoch, val_loss=1.0, instance=float(epoch // 3))
    hands.finish(ended, 0.5, curve=((0, 0.6), (1, 0.4)), epochs=6)
    figure = service.client.get(f"/v1/studies/{study['id']}/plots/intermediate").json()
    assert [trace["y"] for trace in figure["data"] if trace.get("y")] == [[0.6, 0.4]]
    assert figure["layout"]["xaxis"]["title"]["text"] == "fold or repeat"
