"""What answers cost: lists in pages of bytes, values of a study once, and reports that cost the same at every epoch."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, func, insert, select, text
from sqlalchemy.orm import Session

from app.api.export.parquet import as_parquet
from app.api.export.rows import Export
from app.api.export.texts import as_csv, as_json
from app.api.views import definition_of
from app.domain.external import MOST_METRIC_NAMES
from app.domain.json import dumps, loads
from app.domain.trial import FailureReason
from app.store import idempotency, leases, quotas
from app.store.engine import Database
from app.store.portions import PAGE_BYTES
from app.store.studies import find_study
from app.store.tables import Event, IdempotencyKey, Metric, StudyAttribute, Trial, table_of
from app.store.warm_start import SCOPE
from tests.hostile.big import FIXED, FIXED_BYTES, Program, stored_bytes
from tests.integration.conftest import RunningService, serving

MOST_PAGE = PAGE_BYTES + 2 * FIXED_BYTES
"""A page may pass its budget by what isn't counted exactly."""


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[RunningService]:
    """A service over each database in turn."""
    with serving(database, tmp_path) as running:
        yield running


def test_fixed_values_are_in_every_answer_and_in_no_row(service: RunningService) -> None:
    program = Program(service)
    before = stored_bytes(service.database)
    trials = program.take(20)
    assert len(trials) == 20
    for trial in trials:
        assert trial["hyperparameters"].keys() == {*FIXED, "rate"}
        assert program.post(trial, "tell", state="COMPLETE", values={"value": trial["number"]}).status_code == 200
    after = stored_bytes(service.database)
    assert after[0] - before[0] < 20 * 1_000
    assert after[1] - before[1] < 60 * 1_000
    shown = program.get("/trials/3")
    assert {name: shown["hyperparameters"][name] for name in FIXED} == FIXED
    assert shown["hyperparameters"]["rate"] == shown["sampled"]["rate"] == trials[3]["hyperparameters"]["rate"]
    events = [e for page in program.pages("/events", limit=100) for e in page["items"]]
    started = [e for e in events if e["type"] == "trial.started"]
    assert [e["hyperparameters"] for e in started] == [{"rate": t["hyperparameters"]["rate"]} for t in trials]
    assert all(e["omits_fixed"] for e in started)
    (best,) = [e for e in events if e["type"] == "trial.best"]
    assert (best["hyperparameters"], best["omits_fixed"]) == (started[0]["hyperparameters"], True)


def test_a_trial_that_runs_again_has_all_its_values(service: RunningService) -> None:
    program = Program(service)
    answer = service.client.post(f"{program.path}/trials", json={"hyperparameters": {**FIXED, "rate": 0.25}})
    assert answer.status_code == 201, answer.text
    assert answer.json()["hyperparameters"] == {**FIXED, "rate": 0.25}
    assert stored_bytes(service.database)[0] < 1_000
    (first,) = program.ask()
    with service.database.write() as session:
        row = session.execute(select(Trial.id, Trial.study_id, Trial.varied, Trial.hyperparameters)).one()
        assert (row.varied, row.hyperparameters) == (dumps({"rate": 0.25}), None)
        lease = (row.id, first["lease"]["token"])
        leases.charge(session, row.study_id, [lease], FailureReason.LOST, "LEASE_EXPIRED", "gone")
    (second,) = program.ask()
    assert (second["number"], second["attempt"]) == (0, 2)
    assert second["hyperparameters"] == first["hyperparameters"] == {**FIXED, "rate": 0.25}


def test_a_trial_of_an_older_release_keeps_the_values_of_its_row(service: RunningService) -> None:
    program = Program(service)
    (trial,) = program.ask()
    whole = {**FIXED, "note_1": "old", "rate": 0.5}
    with service.database.write() as session:
        row = session.scalars(select(Trial)).one()
        row.hyperparameters, row.varied = dumps(whole), None
        study, key = row.study_id, row.id
    assert program.get("/trials/0")["hyperparameters"] == whole
    with service.database.write() as session:
        leases.release(session, study, [(key, trial["lease"]["token"])], "RELEASED")
    (again,) = program.ask()
    assert again["hyperparameters"] == whole
    assert program.get("/trials/0")["hyperparameters"] == whole


def test_trials_without_their_fixed_values_teach_a_later_study(service: RunningService) -> None:
    program = Program(service)
    for trial in program.take(2):
        assert program.post(trial, "tell", state="COMPLETE", values={"value": 1.0}).status_code == 200
    Program(service, name="later", sampler={"name": "tpe"}, warm_start={"studies": [program.study["id"]]})
    with service.database.read() as session:
        query = select(StudyAttribute.value).where(StudyAttribute.scope == SCOPE)
        earlier = [loads(value) for value in session.scalars(query)]
    assert [trial["number"] for trial in earlier] == [0, 1]
    assert all(trial["sampled"].keys() == {"rate"} for trial in earlier)


def test_pages_end_at_their_bytes_and_lose_nothing(service: RunningService) -> None:
    program = Program(service)
    program.take(30)
    for params in ({"limit": 1000}, {"limit": 1000, "sort": "-number"}):
        pages = program.pages("/trials", **params)
        assert len(pages) > 1
        assert all(len(dumps(page)) <= MOST_PAGE for page in pages)
        numbers = [trial["number"] for page in pages for trial in page["items"]]
        assert sorted(numbers) == list(range(30))
        assert numbers == sorted(numbers, reverse="sort" in params)
    for i in range(20):
        other = {**program.study["definition"], "name": f"other-{i}"}
        assert service.client.post("/v1/studies", json=other).status_code == 201
    seen, cursor = [], None
    for _ in range(100):
        params = {"limit": 1000, "sort": "name"} | ({} if cursor is None else {"cursor": cursor})
        answer = service.client.get("/v1/studies", params=params)
        assert len(answer.content) <= MOST_PAGE
        seen += [study["name"] for study in answer.json()["items"]]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(["big", *(f"other-{i}" for i in range(20))])


def test_exports_hold_a_few_trials_at_a_time(service: RunningService, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.api.export import rows

    program = Program(service)
    program.take(40)
    batches = []
    original = rows.trial_texts

    def noting(*arguments: Any) -> list[str]:
        texts = original(*arguments)
        batches.append(sum(map(len, texts)))
        return texts

    monkeypatch.setattr(rows, "trial_texts", noting)
    for kind in ("json", "csv", "parquet"):
        answer = service.client.get(f"{program.path}/export", params={"format": kind})
        assert answer.status_code == 200
        if kind == "json":
            assert [trial["number"] for trial in answer.json()["items"]] == list(range(40))
            assert len(answer.content) > 40 * FIXED_BYTES
    assert len(batches) >= 9
    assert max(batches) <= MOST_PAGE


@pytest.mark.parametrize(
    "rules",
    [
        {"pruner": {"name": "median", "options": {}}},
        {"training": {"early_stopping": {"metric": "loss", "patience": 50_000}}},
        {},
    ],
)
def test_a_report_reads_no_earlier_epochs(
    service: RunningService, rules: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.store import external

    parsed: list[int] = []
    original = external.loads
    monkeypatch.setattr(external, "loads", lambda text: (parsed.append(1), original(text))[1])
    program = Program(service, hyperparameters={"rate": {"type": "float", "low": 0.0, "high": 1.0}}, **rules)
    (trial,) = program.ask()
    counts = []
    for epoch in range(5):
        parsed.clear()
        assert program.post(trial, "report", epoch=epoch, metrics={"loss": 1.0, "value": 1.0}).status_code == 200
        counts.append(len(parsed))
    late = 9_000
    with service.database.write() as session:
        trial_id = session.scalars(select(Trial.id)).one()
        row = {"trial_id": trial_id, "attempt": 1, "metrics": dumps({"loss": 1.0, "value": 1.0}), "at": 0.0}
        session.connection().execute(insert(table_of(Metric)), [{**row, "epoch": 5 + i} for i in range(late)])
        session.execute(text("UPDATE fettle_trials SET epochs = :epochs"), {"epochs": late + 5})
    program.post(trial, "report", epoch=late + 5, metrics={"loss": 1.0, "value": 1.0})  # sees what it hasn't seen
    parsed.clear()
    assert program.post(trial, "report", epoch=late + 6, metrics={"loss": 1.0, "value": 1.0}).status_code == 200
    assert len(parsed) <= max(counts[1:])
    parsed.clear()
    assert program.post(trial, "heartbeat").status_code == 200
    assert len(parsed) <= max(counts[1:])


def test_epochs_and_names_of_metrics_have_limits(service: RunningService) -> None:
    program = Program(service)
    (trial,) = program.ask()
    refused = program.post(trial, "report", epoch=10_000, metrics={"value": 1.0})
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["epoch"])
    assert "Expected an epoch below 10,000" in refused.json()["errors"][0]["msg"]
    names = [f"m{i}" for i in range(MOST_METRIC_NAMES)]
    for i in range(0, MOST_METRIC_NAMES, 100):
        metrics = dict.fromkeys(names[i : i + 100], 1.0)
        assert program.post(trial, "report", epoch=i, metrics=metrics).status_code == 200
    refused = program.post(trial, "report", epoch=1_000, metrics={"one_more": 1.0})
    assert refused.status_code == 422
    assert "Expected at most 500 names of metrics" in refused.json()["detail"]
    assert program.post(trial, "report", epoch=1_000, metrics={"m7": 1.0}).status_code == 200
    refused = program.post(trial, "tell", state="COMPLETE", values={"another": 1.0, "value": 1.0})
    assert refused.status_code == 422
    assert program.post(trial, "tell", state="COMPLETE", values={"m3": 1.0}).status_code == 422  # no value


def test_metrics_have_pages(service: RunningService) -> None:
    program = Program(service)
    (trial,) = program.ask()
    for epoch in range(7):
        assert program.post(trial, "report", epoch=epoch, metrics={"value": float(epoch)}).status_code == 200
    pages = program.pages("/trials/0/metrics", limit=3)
    assert [[point["epoch"] for point in page["items"]] for page in pages] == [[0, 1, 2], [3, 4, 5], [6]]
    assert program.get("/trials/0/metrics")["next_cursor"] is None


def test_the_front_has_pages_and_is_found_once(service: RunningService, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.api import results

    program = Program(service, objectives=[{"metric": "a"}, {"metric": "b"}])
    for i, trial in enumerate(program.take(25)):
        told = program.post(trial, "tell", state="COMPLETE", values={"a": float(i), "b": float(-i)})
        assert told.status_code == 200, told.text
    looked: list[int] = []
    original = results.trials.objective_values

    def noting(session: Session, study_id: int) -> Any:
        looked.append(study_id)
        return original(session, study_id)

    monkeypatch.setattr(results.trials, "objective_values", noting)
    pages = program.pages("/best", limit=1000)
    assert len(pages) > 1
    assert all(len(dumps(page)) <= MOST_PAGE for page in pages)
    assert [trial["number"] for page in pages for trial in page["items"]] == list(range(25))
    assert len(looked) == 1
    assert [len(page["items"]) for page in program.pages("/best", limit=10)] == [10, 10, 5]
    assert len(looked) == 1
    answer = service.client.get(f"{program.path}/best", params={"cursor": "nonsense"})
    assert answer.json()["code"] == "BAD_CURSOR"


def _kept(service: RunningService) -> Row[Any]:
    with service.database.read() as session:
        sizes = func.coalesce(func.sum(IdempotencyKey.size_bytes), 0)
        return session.execute(select(func.count(), sizes).where(IdempotencyKey.study_id.is_not(None))).one()


def test_kept_answers_count_in_the_quota_and_go_with_their_study(service: RunningService) -> None:
    headers = {"Idempotency-Key": "again"}
    program = Program(service)
    for _ in range(2):
        answer = service.client.post(f"{program.path}/trials", json={"hyperparameters": {}}, headers=headers)
        assert answer.status_code == 201
    count, size = _kept(service)
    assert (count, size > 2 * FIXED_BYTES) == (2, True)
    with service.database.write() as session:
        assert quotas.usage_of(session, "default").stored_bytes == size
        session.execute(
            text("UPDATE fettle_projects SET max_stored_bytes = :most WHERE name = 'default'"),
            {"most": size + FIXED_BYTES},
        )
    answer = service.client.post(f"{program.path}/trials", json={"hyperparameters": {}})
    assert answer.json()["code"] == "QUOTA_EXCEEDED"
    assert len(program.get("/trials")["items"]) == 1
    assert service.client.post(f"{program.path}:cancel").status_code == 200
    assert service.client.delete(program.path).status_code == 204
    assert tuple(_kept(service)) == (0, 0)
    with service.database.write() as session:
        assert idempotency.recorded(session, "default", "again", "") is None
        assert session.scalar(select(func.count()).select_from(Event)) == 0


@pytest.mark.parametrize("form", [as_json, as_csv, as_parquet])
def test_an_export_holds_a_batch_once_while_its_client_takes_it(
    sqlite_database: Database, tmp_path: Path, form: Callable[[Export], Iterator[bytes]]
) -> None:
    with serving(sqlite_database, tmp_path) as service:
        program = Program(service)
        program.take(20)
        with sqlite_database.read() as session:
            study = find_study(session, "default", program.study["id"])
        export = Export(sqlite_database, study, definition_of(study))
        list(form(export))  # imports libraries
        pieces, most = form(export), 0
        tracemalloc.start()
        try:
            for piece in pieces:
                gc.collect()
                most = max(most, tracemalloc.get_traced_memory()[0] - len(piece))
        finally:
            tracemalloc.stop()
    assert most < FIXED_BYTES * 4, "of a batch of 4 MB nothing stays but what is sent"
