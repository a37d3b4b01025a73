"""Databases of earlier versions, with data, upgraded to this one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData

from app.domain.trial import TrialState
from app.errors import Unready
from app.store.engine import Database
from app.store.listing import list_trials
from app.store.migrate import HEAD, VERSION_TABLE, _upgrade, check_schema, migrate, schema_revision
from app.store.tables import Base
from tests.store.conftest import Bench

STUDY: dict[str, Any] = {
    "id": 1, "public_id": "st_old", "project": "default", "name": "old", "managed": True, "description": "kept",
    "directions": '["minimize"]', "objective_metrics": '["value"]', "definition": "{}", "revision": 3,
    "state": "RUNNING", "family": "function", "device": "auto", "worker_labels": "{}", "priority": 0,
    "keep_models": "best", "max_attempts": 3, "trial_limit": 100, "next_number": 6, "sampled_count": 6, "leased": 0,
    "waiting": 1, "running": 0, "complete": 3, "pruned": 1, "fail": 1, "finished_count": 5, "own_failures_in_row": 0,
    "since_improvement": 0, "device_seconds": 1.5, "best_number": 2, "best_value": 0.25, "created_at": 1.7e9,
}  # fmt: skip
"""A study as the first schema kept it."""
TRIALS = (
    ("COMPLETE", True, 0.5), ("COMPLETE", False, 0.125), ("COMPLETE", True, 0.25), ("PRUNED", None, 0.75),
    ("FAIL", None, None), ("WAITING", None, None),
)  # fmt: skip


@pytest.fixture
def old_database(database_url: str) -> Iterator[Database]:
    """A database at the first schema, with a study, its trials, metrics and events."""
    database = Database(database_url)
    with database.engine.begin() as connection:
        _upgrade(connection, "0001")
    old = MetaData()
    with database.engine.begin() as connection:
        old.reflect(connection)

        def insert(table: str, *rows: dict[str, Any]) -> None:
            connection.execute(old.tables[f"fettle_{table}"].insert(), list(rows))

        insert("studies", STUDY)
        insert("event_counters", {"study_id": 1, "last_seq": 1})
        insert("events", {"study_id": 1, "seq": 1, "position": 1, "type": "study.created", "data": "{}"})
        common = {
            "study_id": 1, "attempt": 1, "charged": 0, "queue": 1, "epochs": 1, "device_seconds": 0.0,
            "created_at": 1.7e9, "user_attributes": "{}", "system_attributes": "{}",
        }  # fmt: skip
        for number, (state, feasible, value) in enumerate(TRIALS):
            changes = {"number": number, "state": state, "feasible": feasible, "value": value}
            insert("trials", common | changes | {"finish_seq": number + 1 if state != "WAITING" else None})
        insert("metrics", {"trial_id": 1, "attempt": 1, "epoch": 0, "metrics": '{"value":0.5}', "at": 1.7e9})
    yield database
    database.dispose()


def test_a_database_of_the_first_schema_is_upgraded_with_its_data(old_database: Database) -> None:
    with pytest.raises(Unready, match="0001"):
        check_schema(old_database)
    migrate(old_database)
    check_schema(old_database)
    with old_database.engine.connect() as connection:
        assert schema_revision(connection) == HEAD
        ours = set(Base.metadata.tables)
        options = {
            "version_table": VERSION_TABLE,
            "include_name": lambda name, kind, _: kind != "table" or name in ours,
        }
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []
    with old_database.read() as session:
        by_value = list_trials(session, 1, sort="value", limit=10)
        assert [(t.number, t.state, t.feasible, t.value) for t in by_value[:4]] == [
            (1, "COMPLETE", False, 0.125),
            (2, "COMPLETE", True, 0.25),
            (0, "COMPLETE", True, 0.5),
            (3, "PRUNED", None, 0.75),
        ]
        assert [t.number for t in by_value[4:]] == [4, 5]
    bench = Bench(old_database, 1, "st_old")
    assert (bench.study().description, bench.study().revision, bench.study().best_value) == ("kept", 3, 0.25)
    assert bench.metrics(by_value[2].id) == [(1, 0)]
    bench.check()


def test_an_upgraded_database_goes_on_where_it_was(old_database: Database) -> None:
    migrate(old_database)
    bench = Bench(old_database, 1, "st_old")
    waited, fresh = bench.reserve(2)
    assert (waited.number, fresh.number) == (5, 6)
    bench.start([waited, fresh])
    bench.finish(waited, 0.0625)
    with old_database.read() as session:
        best = list_trials(session, 1, states=[TrialState.COMPLETE], feasible=True, sort="value", limit=1)
    assert best[0].number == 5
    bench.check()
