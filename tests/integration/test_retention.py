"""What clients see of a retention: resets instead of gaps, words instead of nothing, and everything else as before."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, select, update

from app import chores
from app.cli.scoreboard import Scoreboard
from app.client import FettleClient, Reset
from app.domain.trial import FailureReason, Outcome, TrialState
from app.settings import Settings
from app.store import recording
from app.store.retention import DAY_S
from app.store.tables import Event, Restore, Study, Trial
from app.upkeep.prune import prune
from tests.integration.past import past
from tests.integration.test_stream_events import append, numbers, parse, stream, wait_for
from tests.store.conftest import Bench

NOTHING_KEPT = {f"{name}_retention_days": 1.0 for name in ("event", "metric", "log", "artifact")}


def age(service: Any, public_id: str, days: float = 2.0) -> None:
    with service.database.write() as session:
        old = {"finished_at": Study.finished_at - days * DAY_S}
        session.execute(update(Study).where(Study.public_id == public_id).values(old))


def ended(service: Any, events: int = 20, **changes: Any) -> dict[str, Any]:
    """A study that ended two days ago, with so many events in between."""
    study: dict[str, Any] = service.create(**changes)
    append(service.database, study["id"], events)
    service.client.post(f"/v1/studies/{study['id']}:cancel")
    age(service, study["id"])
    return study


def prune_all(service: Any) -> None:
    prune(service.database, Settings(data_dir=service.settings.data_dir, **NOTHING_KEPT))


def test_a_stream_of_a_pruned_study_begins_with_a_reset_and_ends(service: Any) -> None:
    study = ended(service)
    prune_all(service)
    path = f"/v1/studies/{study['id']}/events"
    for start in ("", "?after=7"):
        reset, finished = stream(service, path + start)
        assert reset == {"event": "reset", "data": '{"first_seq": 22}'}
        assert (finished["id"], finished["event"]) == ("22", "study.finished")
    assert numbers(stream(service, f"{path}?after=21")) == [22], "nothing is missing after 21"
    assert service.client.get(path, headers={"Last-Event-ID": "22"}).status_code == 204


def test_pages_of_a_pruned_study_say_what_is_missing(service: Any) -> None:
    study = ended(service)
    path, as_json = f"/v1/studies/{study['id']}/events", {"Accept": "application/json"}
    first = service.client.get(f"{path}?limit=5", headers=as_json).json()
    assert [item["seq"] for item in first["items"]] == [1, 2, 3, 4, 5]
    assert first["reset"] is None
    prune_all(service)
    # A client in the middle of its pages: the next one says that it does not follow.
    rest = service.client.get(path, params={"limit": 5, "cursor": first["next_cursor"]}, headers=as_json).json()
    assert [item["seq"] for item in rest["items"]] == [22]
    assert rest["reset"] == {"first_seq": 22}
    assert rest["next_cursor"] is None


def test_a_client_in_the_middle_of_a_backlog_is_told(
    serve: Callable[..., Any], database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study is pruned after the client got the first page of it."""
    monkeypatch.setattr("app.api.events.BATCH", 10)
    monkeypatch.setattr("app.api.sse.BATCH", 10)
    with serve(database) as service:
        study = ended(service, events=200)
        hub, pages = service.app.state.service.hub, []
        read = hub.read

        async def pruned_in_between(work: Any) -> Any:
            found = await read(work)
            if type(found).__name__ == "LogPage":
                pages.append(found)
                if len(pages) == 2:
                    prune_all(service)
            return found

        monkeypatch.setattr(hub, "read", pruned_in_between)
        events = stream(service, f"/v1/studies/{study['id']}/events")
        seen = [e.get("id") or e["event"] for e in events]
        assert seen == [*map(str, range(1, 21)), "reset", "202"]


def test_a_live_client_that_the_reader_lost_for_long_is_told(
    serve: Callable[..., Any], database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader comes back to a log that ended and was pruned since it last looked."""
    with serve(database) as service:
        study = service.create()
        hub = service.app.state.service.hub
        with service.client.stream("GET", f"/v1/studies/{study['id']}/events") as response:
            events = parse(response.iter_lines())
            assert next(events)["id"] == "1"
            wait_for(lambda: hub.open_streams == 1)
            going = threading.Event()
            reading = hub._reading

            def held_up() -> Any:
                work = reading()

                def later(session: Any) -> Any:
                    going.wait(20)
                    session.rollback()  # SQLite's reader would look at the moment before
                    return work(session)

                return later

            monkeypatch.setattr(hub, "_reading", held_up)
            append(service.database, study["id"], 1)
            assert next(e for e in events if "comment" not in e)["id"] == "2"
            append(service.database, study["id"], 30)
            service.client.post(f"/v1/studies/{study['id']}:cancel")
            age(service, study["id"])
            prune_all(service)
            going.set()
            rest = [e for e in events if "comment" not in e]
        if rest[0]["event"] != "reset":  # one tick was on its way when the reader was held up
            rest = rest[[e["event"] for e in rest].index("reset") :]
        assert [e["event"] for e in rest] == ["reset", "study.finished"]
        assert json.loads(rest[0]["data"]) == {"first_seq": 33}


def test_ids_that_a_log_has_not_reached_begin_it_anew(service: Any) -> None:
    """They were told before the database was restored to an earlier state."""
    study = service.create()
    append(service.database, study["id"], 4)
    path = f"/v1/studies/{study['id']}/events"
    reset, *events = stream(service, f"{path}?follow=false", **{"Last-Event-ID": "500"})
    assert json.loads(reset["data"]) == {"first_seq": 1}
    assert numbers(events) == [1, 2, 3, 4, 5]
    page = service.client.get(f"{path}?after=500", headers={"Accept": "application/json"}).json()
    assert (page["reset"], len(page["items"])) == ({"first_seq": 1}, 5)
    with service.client.stream("GET", path, headers={"Last-Event-ID": "500"}) as response:
        live = (e for e in parse(response.iter_lines()) if "comment" not in e)
        assert next(live)["event"] == "reset"
        assert [next(live)["id"] for _ in range(5)] == ["1", "2", "3", "4", "5"]
        append(service.database, study["id"], 1)
        assert next(live)["id"] == "6"
    service.client.post(f"/v1/studies/{study['id']}:cancel")
    assert numbers(stream(service, path, **{"Last-Event-ID": "500"})[1:]) == list(range(1, 8)), (
        "no 204: it has not seen this"
    )


def test_the_firehose_says_which_studies_lost_events(service: Any) -> None:
    kept = service.create(name="kept")
    middle = stream(service, "/v1/events?follow=false")[-1]["id"]
    lost = ended(service, name="lost")
    append(service.database, kept["id"], 2)
    latest = stream(service, "/v1/events?follow=false")[-1]["id"]
    prune_all(service)
    reset, *events = stream(service, "/v1/events?follow=false", **{"Last-Event-ID": middle})
    assert reset["event"] == "reset"
    assert json.loads(reset["data"]) == {"reason": "retention", "studies": [lost["id"]]}
    assert [json.loads(e["data"])["type"] for e in events] == ["study.finished", "trial.metrics", "trial.metrics"]
    assert stream(service, "/v1/events?follow=false", **{"Last-Event-ID": latest}) == [], "it has seen all that is gone"
    page = service.client.get(f"/v1/events?after={middle}", headers={"Accept": "application/json"}).json()
    assert page["reset"] == {"reason": "retention", "studies": [lost["id"]]}
    page = service.client.get(f"/v1/events?after={latest}", headers={"Accept": "application/json"}).json()
    assert page["reset"] is None
    with service.client.stream("GET", f"/v1/events?after={latest}") as response:
        append(service.database, kept["id"], 1)
        assert next(e for e in parse(response.iter_lines()) if "comment" not in e)["event"] == "trial.metrics"


def test_ids_of_the_firehose_from_before_a_restore_begin_it_anew(service: Any) -> None:
    study = service.create()
    append(service.database, study["id"], 2)
    before = stream(service, "/v1/events?follow=false")
    with service.database.write() as session:
        session.add(Restore(number=1, restored_at=1.0, taken_at=None))
    reset, *after = stream(service, "/v1/events?follow=false", **{"Last-Event-ID": before[-1]["id"]})
    assert json.loads(reset["data"]) == {"reason": "restore", "studies": []}
    assert [e["data"] for e in after] == [e["data"] for e in before]
    assert stream(service, "/v1/events?follow=false", **{"Last-Event-ID": after[-1]["id"]}) == []
    for bad in ("1-1-1-1-1", "x", "1-1-1--1", "1-1"):
        assert service.client.get(f"/v1/events?after={bad}").status_code == 400


def trained(service: Any) -> dict[str, Any]:
    """A study that ended two days ago: one trial has metrics by epoch, a log and no result, one is the best."""
    study: dict[str, Any] = service.create(budget={"trials": 2})
    with service.database.read() as session:
        row = session.scalars(select(Study).where(Study.public_id == study["id"])).one()
    bench = Bench(service.database, row.id, study["id"])
    failing, best = bench.running(2)
    bench.record(*(bench.report(r, epoch, 0.5) for r in (failing, best) for epoch in range(3)))
    lost = {"reason": FailureReason.EXCEPTION, "log": "boom\n", "epochs": 3}
    failed = Outcome(failing.trial_id, failing.token, TrialState.FAIL, **lost)
    with service.database.write() as session:
        recording.finish(session, row.id, [failed], [], 30.0)
    bench.finish(best)
    age(service, study["id"])
    with service.database.write() as session:
        session.execute(update(Trial).values(finished_at=Trial.finished_at - 2 * DAY_S))
    return study


def test_what_was_pruned_is_said_where_it_was(service: Any) -> None:
    study = trained(service)
    trial = f"/v1/studies/{study['id']}/trials/0"
    get = service.client.get
    assert len(get(f"{trial}/metrics").json()["items"]) == 3
    assert get(f"{trial}/metrics").json()["pruned_at"] is None
    assert get(f"{trial}/logs").text.startswith("boom")
    assert get(trial).json()["metrics"] == {"value": 0.5}
    before = {
        name: get(f"/v1/studies/{study['id']}/{name}").json() for name in ("best", "importances", "plots/intermediate")
    }
    exported = get(f"/v1/studies/{study['id']}/export?format=csv").text
    prune_all(service)
    metrics = get(f"{trial}/metrics").json()
    assert metrics["items"] == []
    assert metrics["pruned_at"].endswith("Z")
    assert "deleted at" in get(f"{trial}/logs").text
    assert get(f"{trial}/artifacts").json()["pruned_at"].endswith("Z")
    missing = get(f"{trial}/artifacts/model.keras")
    assert (missing.status_code, missing.json()["code"]) == (404, "ARTIFACT_NOT_FOUND")
    assert "retention" in missing.json()["detail"]
    assert get(trial).json()["metrics"] is None, "the last epoch of a trial without a result was known from there alone"
    for name, content in before.items():
        assert get(f"/v1/studies/{study['id']}/{name}").json() == content, "results stay"
    assert get(f"/v1/studies/{study['id']}/export?format=csv").text.splitlines()[0] == exported.splitlines()[0]
    assert get(f"/v1/studies/{study['id']}/report").status_code == 200
    other = get(f"/v1/studies/{study['id']}/trials/1").json()
    assert (other["state"], other["values"]) == ("COMPLETE", {"value": 0.5})


def test_a_new_study_starts_from_a_pruned_one(service: Any) -> None:
    study = service.create(budget={"trials": 3})
    past(
        service.database,
        study["id"],
        [{"sampled": {"x0": x}, "values": [x * x], "metrics": {"value": x * x}} for x in (1.0, 2.0, 3.0)],
    )
    service.client.post(f"/v1/studies/{study['id']}:cancel")
    age(service, study["id"])
    prune_all(service)
    answer = service.client.post(
        "/v1/studies",
        json={
            "name": "after", "model": {"family": "function"},
            "hyperparameters": {"x0": {"type": "float", "low": -5.0, "high": 5.0}},
            "objectives": [{"metric": "value"}], "budget": {"trials": 3}, "warm_start": {"studies": [study["id"]]},
        },
    )  # fmt: skip
    assert answer.status_code == 201, answer.text


def test_the_client_and_its_scoreboard_take_a_reset(service: Any) -> None:
    study = trained(service)
    prune_all(service)
    with FettleClient(service.url) as client:
        events = list(client.events(study["id"]))
        board = Scoreboard(client.study(study["id"]))
    assert isinstance(events[0], Reset)
    for event in events:
        board.add(event)
    assert board.ended == {"COMPLETE": 1, "PRUNED": 0, "FAIL": 1}
    assert board.best is not None
    assert (board.best.trial, board.over) == (1, True)


def test_the_client_follows_a_log_back(service: Any) -> None:
    study = service.create()
    append(service.database, study["id"], 4)
    service.client.post(f"/v1/studies/{study['id']}:cancel")
    with FettleClient(service.url) as client:
        reset, *events = client.events(study["id"], after=1000)
    assert isinstance(reset, Reset)
    assert [event.seq for event in events] == [1, 2, 3, 4, 5, 6]


def test_the_service_prunes_by_itself(
    serve: Callable[..., Any], database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores, "PRUNE_INTERVAL_S", 0.05)
    with serve(database, **NOTHING_KEPT) as service:
        study = ended(service)

        def kinds() -> list[str]:
            with database.read() as session:
                query = select(Event.type).join(Study, Study.id == Event.study_id).where(Study.public_id == study["id"])
                return list(session.scalars(query))

        wait_for(lambda: kinds() == ["study.finished"])


def test_a_log_without_any_event_left_still_ends(service: Any) -> None:
    study = ended(service)
    hub = service.app.state.service.hub
    with service.database.write() as session:
        session.execute(delete(Event))
    assert stream(service, f"/v1/studies/{study['id']}/events") == [{"event": "reset", "data": '{"first_seq": 23}'}]
    wait_for(lambda: hub.open_streams == 0)
    assert httpx.get(f"{service.url}/v1/studies/{study['id']}/events?after=22").status_code == 204
