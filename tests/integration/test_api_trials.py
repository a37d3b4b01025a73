"""Trials over HTTP, as real leases make them: listed, enqueued, cancelled, with metrics, logs and files."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from app.api.schemas import Trial as TrialSchema
from app.domain.trial import ArtifactPointer, FailureReason, Outcome, Proposal, TrialState
from app.store import leases, recording
from app.store.recording import Report
from app.store.tables import Study, Trial

FIELDS = {
    "study_id", "number", "state", "reason", "feasible", "attempt", "hyperparameters", "sampled", "values", "metrics",
    "selected_epoch", "epochs", "worker_id", "device", "created_at", "started_at", "finished_at", "duration_seconds",
    "error", "artifacts", "parent", "first_epoch", "reused_from",
}  # fmt: skip


class Hands:
    """A worker's writes, by hand."""

    def __init__(self, service: Any, public_id: str) -> None:
        self.database = service.database
        with self.database.read() as session:
            self.study_id = session.scalars(select(Study.id).where(Study.public_id == public_id)).one()
        self.public_id = public_id

    def start(self, count: int = 1, **values: float) -> list[Any]:
        """Reserve and start trials with these hyperparameters."""
        with self.database.write() as session:
            reserved = leases.reserve(session, self.study_id, "w1", count, 60)
        sampled = values or {"x0": 1.0}
        proposals = [Proposal(r, {"function": "sphere"} | sampled, sampled, {}) for r in reserved]
        with self.database.write() as session:
            leases.start(session, self.study_id, proposals, "w1", "cpu", 60)
        return reserved

    def report(self, trial: Any, epoch: int, **metrics: float) -> None:
        with self.database.write() as session:
            report = Report(trial.trial_id, trial.token, trial.number, trial.attempt, epoch, metrics)
            recording.record(session, self.study_id, self.public_id, [report], 60)

    def finish(self, trial: Any, *values: float, state: TrialState = TrialState.COMPLETE, **more: Any) -> None:
        outcome = Outcome(trial.trial_id, trial.token, state, values or None, **more)
        with self.database.write() as session:
            recording.finish(session, self.study_id, [outcome], [], 60)


def pages(service: Any, path: str, **query: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    while True:
        response = service.client.get(path, params=query)
        assert response.status_code == 200, response.text
        items += response.json()["items"]
        query["cursor"] = response.json()["next_cursor"]
        if query["cursor"] is None:
            return items


def test_a_trial_is_shown_from_its_start_to_its_end(service: Any) -> None:
    study = service.create()
    hands = Hands(service, study["id"])
    (trial,) = hands.start(x0=2.0)
    path = f"/v1/studies/{study['id']}/trials/0"
    hands.report(trial, 0, value=5.0)
    hands.report(trial, 1, value=math.inf)
    shown = service.client.get(path).json()
    assert set(shown) >= FIELDS
    assert (shown["state"], shown["attempt"], shown["epochs"]) == ("RUNNING", 1, 2)
    assert shown["hyperparameters"] == {"function": "sphere", "x0": 2.0}
    assert shown["sampled"] == {"x0": 2.0}
    assert shown["metrics"] == {"value": "Infinity"}, "the last epoch's, not finite numbers as text"
    assert shown["finished_at"] is None
    hands.finish(trial, 4.0, metrics={"value": 4.0}, selected_epoch=1, epochs=2, log="hello\n")
    shown = service.client.get(path).json()
    TrialSchema.model_validate(shown)
    assert (shown["state"], shown["feasible"], shown["values"]) == ("COMPLETE", True, {"value": 4.0})
    assert shown["selected_epoch"] == 1
    assert shown["duration_seconds"] >= 0
    items = service.client.get(f"{path}/metrics").json()["items"]
    assert [(i["epoch"], i["attempt"], i["metrics"]) for i in items] == [
        (0, 1, {"value": 5.0}),
        (1, 1, {"value": "Infinity"}),
    ]
    assert service.client.get(f"{path}/metrics?attempt=7").json()["items"] == []
    logs = service.client.get(f"{path}/logs")
    assert (logs.headers["content-type"].partition(";")[0], logs.text) == ("text/plain", "hello\n")
    found = service.client.get(f"/v1/studies/{study['id']}").json()
    assert found["best"] == {"number": 0, "values": {"value": 4.0}}
    assert found["progress"]["complete"] == 1
    assert service.client.get(f"/v1/studies/{study['id']}/best").json()["items"] == [shown]


def test_trials_are_listed_by_value_with_those_without_one_last(service: Any) -> None:
    study = service.create(constraints=[{"metric": "value", "max": 4.0}])
    hands = Hands(service, study["id"])
    trials = hands.start(6)
    for trial, value in zip(trials, [3.0, 1.0, 5.0, 1.0], strict=False):
        hands.finish(trial, value, violations=(value - 4.0,))
    failure = {"reason": FailureReason.EXCEPTION, "error_code": "ValueError", "error_message": "no"}
    hands.finish(trials[4], state=TrialState.FAIL, **failure)
    path = f"/v1/studies/{study['id']}/trials"

    def numbers(**query: Any) -> list[int]:
        return [trial["number"] for trial in pages(service, path, limit=2, **query)]

    assert numbers() == [0, 1, 2, 3, 4, 5]
    assert numbers(sort="-number") == [5, 4, 3, 2, 1, 0]
    assert numbers(sort="value") == [1, 3, 0, 2, 4, 5]
    assert numbers(sort="-value") == [2, 0, 1, 3, 4, 5]
    assert numbers(state="FAIL") == [4]
    assert numbers(state=["FAIL", "RUNNING"]) == [4, 5]
    assert numbers(feasible="true") == [0, 1, 3]
    assert numbers(feasible="false") == [2]
    failed = service.client.get(f"{path}/4").json()
    assert (failed["reason"], failed["error"]) == ("EXCEPTION", {"code": "ValueError", "message": "no"})


def test_several_objectives_have_a_front_and_no_order(service: Any) -> None:
    study = service.create(
        name="two",
        model={"family": "mlp"},
        dataset={"name": "wine"},
        hyperparameters={},
        objectives=[{"metric": "val_accuracy", "direction": "maximize"}, {"metric": "parameter_count"}],
    )
    hands = Hands(service, study["id"])
    for trial, values in zip(hands.start(4), [(0.9, 10.0), (0.8, 5.0), (0.8, 20.0), (0.99, 1.0)], strict=True):
        broken = values[1] == 1.0
        hands.finish(trial, *values, violations=(1.0,) if broken else ())
    best = service.client.get(f"/v1/studies/{study['id']}/best").json()["items"]
    assert [trial["number"] for trial in best] == [0, 1]
    assert best[0]["values"] == {"val_accuracy": 0.9, "parameter_count": 10.0}
    refused = service.client.get(f"/v1/studies/{study['id']}/trials?sort=value")
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["loc"] == ["query", "sort"]
    assert service.client.get(f"/v1/studies/{study['id']}").json()["best"] is None


def test_a_trial_is_enqueued_and_cancelled(service: Any) -> None:
    study = service.create()
    path = f"/v1/studies/{study['id']}/trials"
    response = service.client.post(path, json={"hyperparameters": {"x0": 1, "function": "sphere"}})
    assert response.status_code == 201
    trial = response.json()
    assert (trial["state"], trial["number"]) == ("WAITING", 0)
    assert trial["hyperparameters"] == {"function": "sphere", "delay_seconds": 0.0, "x0": 1.0}
    assert response.headers["location"] == f"{path}/0"
    for _ in range(2):
        cancelled = service.client.post(f"{path}/0:cancel")
        assert (cancelled.status_code, cancelled.json()["reason"]) == (200, "CANCELLED")
    hands = Hands(service, study["id"])
    (running,) = hands.start()
    hands.finish(running, 1.0)
    assert service.client.post(f"{path}/1:cancel").json()["code"] == "STATE_CONFLICT"


def test_files_are_listed_and_served(service: Any, tmp_path: Path) -> None:
    study = service.create()
    hands = Hands(service, study["id"])
    (trial,) = hands.start()
    content = bytes(range(256)) * 20_000
    file = tmp_path / "artifacts" / "st" / "0" / "model.keras"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    (tmp_path / "secret").write_text("secret")
    pointers = (
        ArtifactPointer("model.keras", "st/0/model.keras", "application/octet-stream", len(content), {"classes": [1]}),
        ArtifactPointer("gone", "st/0/gone", "text/plain", 5),
        ArtifactPointer("escape", "../secret", "text/plain", 6),
        ArtifactPointer("root", str(tmp_path / "secret"), "text/plain", 6),
    )
    hands.finish(trial, 1.0, artifacts=pointers)
    path = f"/v1/studies/{study['id']}/trials/0"
    listed = service.client.get(f"{path}/artifacts").json()["items"]
    assert [item["name"] for item in listed] == ["escape", "gone", "model.keras", "root"]
    assert listed[2]["details"] == {"classes": [1]}
    assert service.client.get(path).json()["artifacts"] == listed
    got = service.client.get(f"{path}/artifacts/model.keras")
    assert (got.status_code, got.content) == (200, content)
    assert got.headers["content-length"] == str(len(content))
    for name in ("gone", "escape", "root"):
        response = service.client.get(f"{path}/artifacts/{name}")
        assert (response.status_code, response.json()["code"]) == (404, "ARTIFACT_NOT_FOUND")


def test_an_export_has_all_trials(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.export.rows.BATCH", 3)
    study = service.create()
    hands = Hands(service, study["id"])
    for i, trial in enumerate(hands.start(7)):
        hands.finish(trial, float(i))
    path = f"/v1/studies/{study['id']}/export"
    rows = list(csv.DictReader(io.StringIO(service.client.get(path).text)))
    assert [(row["number"], row["values.value"], row["feasible"]) for row in rows] == [
        (str(i), str(float(i)), "true") for i in range(7)
    ]
    assert rows[0]["hyperparameters.x0"] == "1.0"
    exported = service.client.get(f"{path}?format=json").json()["items"]
    assert exported == pages(service, f"/v1/studies/{study['id']}/trials")
    assert service.client.get(f"{path}?format=parquet").status_code in (200, 422)


def test_workers_are_listed_with_what_they_train_and_sent_home(service: Any) -> None:
    from app.store import workers as fleet

    with service.database.write() as session:
        offer = fleet.Offer("cpu", ["function"], {"zone": "a"})
        fleet.register_worker(session, "w1", "host", 7, offer)
        fleet.register_worker(session, "w2", "host", 8, offer)
    study = service.create()
    Hands(service, study["id"]).start(2)
    workers = pages(service, "/v1/workers", limit=1)
    assert [w["id"] for w in workers] == ["w1", "w2"]
    assert workers[0]["trials"] == [{"study_id": study["id"], "number": n} for n in (0, 1)]
    assert (workers[0]["live"], workers[0]["families"], workers[0]["labels"]) == (True, ["function"], {"zone": "a"})
    for _ in range(2):
        assert service.client.post("/v1/workers/w1:drain").json()["drain_requested"] is True
    with service.database.write() as session:
        assert fleet.heartbeat(session, "w1") is True
        assert fleet.heartbeat(session, "w2") is False


def test_numbers_for_prometheus_follow_the_counters(service: Any) -> None:
    study = service.create()
    hands = Hands(service, study["id"])
    trial, _ = hands.start(2)
    hands.finish(trial, 1.0)
    text = service.client.get("/metrics").text
    assert 'fettle_studies{state="RUNNING"} 1.0' in text
    assert 'fettle_trials{state="COMPLETE"} 1.0' in text
    assert 'fettle_trials{state="RUNNING"} 1.0' in text


def test_expired_leases_are_taken_back_by_the_service(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    study = service.create(execution={"max_attempts": 1})
    hands = Hands(service, study["id"])
    (trial,) = hands.start()
    with hands.database.write() as session:
        leases.renew(session, [(trial.trial_id, trial.token)], 0.0)
    events = f"/v1/studies/{study['id']}/events?after=3"
    with service.client.stream("GET", events) as response:
        data = next(line[6:] for line in response.iter_lines() if line.startswith("data: "))
    assert json.loads(data)["reason"] == "LOST"


AWKWARD = 'quote " backslash \\ newline \n tab \t and é, ☃, \x1f, </script>'


def test_stored_words_and_numbers_stay_themselves_in_every_answer(service: Any) -> None:
    """What is stored as JSON goes into answers unparsed: it must be what a writer of JSON would make of it."""
    study = service.create()
    hands = Hands(service, study["id"])
    numbers = {"value": math.nan, "a": math.inf, "b": -math.inf, "c": 1e-300, "d": 5.0, "e": -0.0}
    told = {"value": "NaN", "a": "Infinity", "b": "-Infinity", "c": 1e-300, "d": 5.0, "e": -0.0}
    complete, failed, running, waiting = hands.start(4)
    with hands.database.write() as session:
        session.execute(update(Trial).where(Trial.study_id == hands.study_id).values(device=AWKWARD))
    hands.finish(complete, 2.5, metrics=numbers, selected_epoch=3)
    error = {"reason": FailureReason.EXCEPTION, "error_code": AWKWARD, "error_message": AWKWARD}
    hands.finish(failed, state=TrialState.FAIL, **error)
    hands.report(running, 0, **numbers)
    with hands.database.write() as session:
        leases.release(session, hands.study_id, [(waiting.trial_id, waiting.token)], "draining")
    path = f"/v1/studies/{study['id']}"
    items = service.client.get(f"{path}/trials").json()["items"]
    assert [item["state"] for item in items] == ["COMPLETE", "FAIL", "RUNNING", "WAITING"]
    for item in items:
        assert set(item) == FIELDS
        assert TrialSchema.model_validate(item).model_dump(mode="json") == item
        assert item["device"] == AWKWARD
        assert item == service.client.get(f"{path}/trials/{item['number']}").json()
    assert items[0]["values"] == {"value": 2.5}
    assert items[0]["metrics"] == items[2]["metrics"] == told
    assert items[1]["error"] == {"code": AWKWARD, "message": AWKWARD}
    assert items[1]["values"] is items[1]["metrics"] is items[3]["metrics"] is None
    assert service.client.get(f"{path}/export?format=json").json()["items"] == items
    rows = list(csv.DictReader(io.StringIO(service.client.get(f"{path}/export").text, newline="")))
    assert rows[1]["error"] == f"{AWKWARD}: {AWKWARD}"
    assert [row["device"] for row in rows] == [AWKWARD] * 4
    (epoch,) = service.client.get(f"{path}/trials/2/metrics").json()["items"]
    assert epoch["metrics"] == told
    assert set(epoch) == {"epoch", "attempt", "metrics", "at"}
