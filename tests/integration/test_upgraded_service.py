"""A study that runs in a database of any earlier revision is served after the upgrade, and run to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData

from app.domain.json import dumps
from app.store.engine import Database
from app.store.migrate import HEAD, migrate, migrate_to
from tests.integration.test_old_studies import DEFINITION, _study, _trial
from tests.store.conftest import Bench
from tests.store.revisions import REVISIONS
from tests.support.processes import fleet_on, over

BACKENDS = ("sqlite", "postgres")
BUDGET = 8
FINISHED = ["COMPLETE", "PRUNED", "FAIL", "COMPLETE"]
DEAD = "w-dead"
LATER: dict[str, dict[str, Any]] = {
    "artifacts": {"study_id": 1},
    "trials": {"lease_seconds": 60.0, "first_epoch": 0, "identity": None},
    "workers": {"memory_mb": 1000.0, "family_versions": '{"function":"1"}'},
}
"""Columns that came after the first revision, where a row can't do without them or they are told."""


# A worker takes some seconds to start: one database a revision, in turns. What the data become is tested on both.
@pytest.fixture(params=[(r, BACKENDS[i % 2]) for i, r in enumerate(reversed(REVISIONS))], ids="-".join)
def old(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database at a revision, with a study of which four trials are over, one was left running and one waits."""
    revision, backend = request.param
    database = Database(request.getfixturevalue(f"{backend}_url"))
    migrate_to(database, revision)
    metadata = MetaData()
    with database.engine.begin() as connection:
        metadata.reflect(connection)

        def insert(table: str, *rows: dict[str, Any]) -> None:
            found = metadata.tables[f"fettle_{table}"]
            later = {key: value for key, value in LATER.get(table, {}).items() if key in found.columns}
            connection.execute(found.insert(), [row | later for row in rows])

        definition = DEFINITION | {"budget": DEFINITION["budget"] | {"trials": BUDGET}, "labels": {"team": "old"}}
        insert("studies", _study() | _running() | {"definition": dumps(definition)})
        insert("study_labels", {"study_id": 1, "key": "team", "value": "old"})
        insert("event_counters", {"study_id": 1, "last_seq": 2})
        for seq, kind in ((1, "study.created"), (2, "study.started")):
            data = dumps({"seq": seq, "type": kind, "at": "2023-11-14T22:13:20Z", "study_id": "st_old"})
            insert("events", {"study_id": 1, "seq": seq, "position": seq, "type": kind, "data": data})
        insert("trials", *(_trial(number, state) for number, state in enumerate(FINISHED)))
        insert("trials", _left_running(4))
        insert("trials", _trial(5, "WAITING") | dict.fromkeys(_ENDS) | {"epochs": 0, "curve": None})
        insert("metrics", {"trial_id": 1, "attempt": 1, "epoch": 0, "metrics": '{"value":2.5}', "at": 1.7e9})
        insert("trial_logs", {"trial_id": 3, "attempt": 1, "text": "boom\n", "at": 1.7e9})
        file = {"name": "x.txt", "attempt": 1, "path": "st_old/0/x.txt", "media_type": "text/plain", "size_bytes": 1}
        insert("artifacts", file | {"trial_id": 1, "details": "{}", "created_at": 1.7e9})
        worker = {"id": DEAD, "host": "gone", "pid": 1, "state": "ACTIVE", "device": "cpu", "families": '["function"]'}
        since = {"drain_requested": False, "started_at": 1.7e9, "heartbeat_at": 1.7e9}
        insert("workers", worker | since | {"labels": "{}", "version": "0.0.1"})
    assert migrate(database) == HEAD
    yield database
    database.dispose()


_ENDS = ("started_at", "finished_at", "finish_seq", "hyperparameters", "sampled")


def _running() -> dict[str, Any]:
    return {
        "state": "RUNNING", "trial_limit": BUDGET, "leased": 1, "waiting": 1, "running": 1, "complete": 2, "pruned": 1,
        "fail": 1, "finished_count": 4, "finished_at": None,
    }  # fmt: skip


def _left_running(number: int) -> dict[str, Any]:
    """A trial whose worker died in its middle."""
    lease = {"lease_token": "0" * 32, "lease_expires_at": 1.7e9, "worker_id": DEAD, "device": "cpu"}
    return _trial(number, "RUNNING") | lease | {"finished_at": None, "finish_seq": None}


def test_a_study_of_an_earlier_revision_is_served_and_run_to_its_end(
    old: Database, serve: Callable[..., Any], tmp_path: Path
) -> None:
    with serve(old) as service, fleet_on(old, tmp_path) as fleet:
        got = service.client.get
        assert got("/readyz").status_code == 200
        assert [(s["name"], s["state"]) for s in got("/v1/studies?label=team:old").json()["items"]] == [
            ("old", "RUNNING")
        ]
        before = got("/v1/studies/st_old/trials").json()["items"]
        assert [trial["state"] for trial in before[:4]] == FINISHED
        assert [file["name"] for file in before[0]["artifacts"]] == ["x.txt"]
        assert got("/v1/studies/st_old/trials/2/logs").text == "boom\n"
        assert got("/v1/studies/st_old/best").json()["items"][0]["number"] == 0
        fleet.start()
        bench = Bench(old, 1, "st_old")
        assert over(bench) == "COMPLETED"
        after = got("/v1/studies/st_old/trials").json()["items"]
        assert len(after) == BUDGET
        assert after[:4] == before[:4], "what was over stays as it was"
        assert after[4]["attempt"] == 2, "what the dead worker held was taken up again"
        assert {trial["state"] for trial in after[4:]} == {"COMPLETE"}
        events = got("/v1/studies/st_old/events?follow=false", headers={"Accept": "application/json"}).json()["items"]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert (events[0]["type"], events[-1]["type"]) == ("study.created", "study.finished")
        assert DEAD in [worker["id"] for worker in got("/v1/workers").json()["items"]]
        bench.check()
