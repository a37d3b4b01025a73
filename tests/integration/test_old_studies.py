"""Studies of the first schema, whose rows and definitions know nothing of what came later, told by this service."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import MetaData

from app.domain.json import dumps
from app.store.engine import Database
from app.store.migrate import _upgrade, migrate

DEFINITION: dict[str, Any] = {
    "name": "old",
    "description": "",
    "labels": {},
    "model": {"family": "function"},
    "dataset": None,
    "hyperparameters": {
        "function": "sphere",
        "x0": {"type": "float", "low": -5.0, "high": 5.0, "step": None, "log": False, "when": {}},
        "x1": {"type": "categorical", "choices": [0, 1], "when": {}},
        "delay_seconds": 0.0,
    },
    "training": {"epochs": 2, "seed": 0, "precision": "float32", "select_epoch": "last", "early_stopping": None},
    "objectives": [{"metric": "value", "direction": "minimize", "target": None}],
    "constraints": [],
    "sampler": {"name": "random", "options": {"seed": 0}},
    "pruner": {"name": "none", "options": {}},
    "budget": {"trials": 6, "seconds": None, "device_seconds": None, "no_improvement_trials": None},
    "execution": {
        "parallel_trials": "auto",
        "device": "auto",
        "worker_labels": {},
        "max_attempts": 3,
        "trial_timeout_seconds": None,
        "duplicates": "allow",
        "keep_models": "best",
        "priority": 0,
    },
    "warm_start": {"studies": []},
}
"""With all defaults of its time, as definitions are kept."""
ENDS = ["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED", "FAIL", "COMPLETE"]
PLOTS = ["history", "intermediate", "parallel", "slice", "contour", "edf", "timeline", "importances"]


@pytest.fixture
def old_database(database_url: str) -> Iterator[Database]:
    """A database at the first schema with a study that is over, upgraded."""
    database = Database(database_url)
    with database.engine.begin() as connection:
        _upgrade(connection, "0001")
    with database.engine.begin() as connection:
        old = MetaData()
        old.reflect(connection)

        def insert(table: str, *rows: dict[str, Any]) -> None:
            connection.execute(old.tables[f"fettle_{table}"].insert(), list(rows))

        insert("studies", _study())
        insert("event_counters", {"study_id": 1, "last_seq": 1})
        insert("events", {"study_id": 1, "seq": 1, "position": 1, "type": "study.finished", "data": "{}"})
        insert("trials", *(_trial(number, state) for number, state in enumerate(ENDS)))
        insert(
            "metrics",
            *(
                {"trial_id": 1, "attempt": 1, "epoch": e, "metrics": f'{{"value":{2 - e}}}', "at": 1.7e9}
                for e in (0, 1)
            ),
        )
    migrate(database)
    yield database
    database.dispose()


def _study() -> dict[str, Any]:
    return {
        "id": 1, "public_id": "st_old", "project": "default", "name": "old", "managed": True, "description": "",
        "directions": '["minimize"]', "objective_metrics": '["value"]', "definition": dumps(DEFINITION), "revision": 1,
        "state": "COMPLETED", "family": "function", "device": "auto", "worker_labels": "{}", "priority": 0,
        "keep_models": "best", "max_attempts": 3, "trial_limit": 6, "next_number": 6, "sampled_count": 6, "leased": 0,
        "waiting": 0, "running": 0, "complete": 4, "pruned": 1, "fail": 1, "finished_count": 6,
        "own_failures_in_row": 0, "since_improvement": 0, "device_seconds": 1.5, "best_number": 0, "best_value": 0.0,
        "created_at": 1.7e9, "started_at": 1.7e9, "finished_at": 1.7e9 + 9,
    }  # fmt: skip


def _trial(number: int, state: str) -> dict[str, Any]:
    values = dumps({"x0": float(number), "x1": number % 2})
    ended = state == "COMPLETE"
    return {
        "study_id": 1, "number": number, "state": state, "feasible": True if ended else None, "attempt": 1,
        "charged": 0, "queue": 1, "hyperparameters": values, "sampled": values,
        "reason": "EXCEPTION" if state == "FAIL" else None, "error_message": "boom" if state == "FAIL" else None,
        "objective_values": dumps([float(number**2)]) if ended else None, "value": float(number**2) if ended else None,
        "metrics": dumps({"value": float(number**2)}) if ended else None, "selected_epoch": 1 if ended else None,
        "epochs": 2, "curve": f"[[0,{number + 1}.5],[1,{number}.5]]", "device_seconds": 0.1, "finish_seq": number + 1,
        "created_at": 1.7e9, "started_at": 1.7e9 + number, "finished_at": 1.7e9 + number + 1, "user_attributes": "{}",
        "system_attributes": "{}",
    }  # fmt: skip


def test_a_study_of_the_first_schema_is_listed_plotted_and_exported(
    old_database: Database, serve: Callable[..., Any]
) -> None:
    with serve(old_database) as service:
        got = service.client.get
        assert [study["name"] for study in got("/v1/studies").json()["items"]] == ["old"]
        listed = got("/v1/studies/st_old/trials").json()["items"]
        assert [trial["state"] for trial in listed] == ENDS
        new = ("parent", "reused_from", "first_epoch", "artifacts")
        assert [[trial[name] for name in new] for trial in listed] == [[None, None, 0, []]] * 6
        assert got("/v1/studies/st_old/best").json()["items"][0]["number"] == 0
        assert len(got("/v1/studies/st_old/trials/0/metrics").json()["items"]) == 2
        for plot in PLOTS:
            answer = got(f"/v1/studies/st_old/plots/{plot}")
            assert (answer.status_code, bool(answer.json()["data"])) == (200, True), plot
        shares = got("/v1/studies/st_old/importances").json()["items"]
        assert {item["hyperparameter"] for item in shares} == {"x0", "x1"}
        assert "<html" in got("/v1/studies/st_old/report").text
        rows = list(csv.DictReader(io.StringIO(got("/v1/studies/st_old/export?format=csv").text)))
        assert [row["state"] for row in rows] == ENDS
        for form in ("json", "parquet"):
            assert got(f"/v1/studies/st_old/export?format={form}").status_code == 200
        longer = service.client.patch("/v1/studies/st_old", json={"budget": {"trials": 9}})
        assert (longer.status_code, longer.json()["state"]) == (200, "RUNNING")
