"""Migrations on both databases: at once from several processes, beside other tools' tables, with data, and in words."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import optuna
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData, inspect, text

from app.errors import Unready
from app.store import lifecycle
from app.store.engine import Database
from app.store.migrate import HEAD, VERSION_TABLE, _upgrade, check_schema, migrate, schema_revision
from app.store.tables import Base
from app.store.trials import artifacts_of
from tests.store.conftest import Bench, definition
from tests.store.test_upgrades import STUDY
from tests.support.processes import ROOT

MIGRATE = """
import sys
from app.store.engine import Database
from app.store.migrate import migrate
migrate(Database(sys.argv[1]))
"""


@pytest.fixture
def empty_database(database_url: str) -> Iterator[Database]:
    """A database without any table."""
    database = Database(database_url)
    yield database
    database.dispose()


def test_processes_that_migrate_at_once_all_succeed(database_url: str, empty_database: Database) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen([sys.executable, "-c", MIGRATE, database_url], env=environment, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0] * 4, "\n".join(errors)
    check_schema(empty_database)


def test_the_migrations_make_what_the_tables_declare(database: Database) -> None:
    with database.engine.connect() as connection:
        options = {
            "version_table": VERSION_TABLE,
            "include_name": lambda name, kind, _: kind != "table" or name in ours,
        }
        ours = set(Base.metadata.tables)
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []


def test_migrating_again_keeps_the_data(database: Database) -> None:
    with database.write() as session:
        study = lifecycle.create_study(session, definition(), project="default", created_by=None, sample_limit=None)
    bench = Bench(database, study.id, study.public_id)
    bench.finish(bench.running()[0])
    migrate(database)
    assert bench.trial(0).state == "COMPLETE"
    bench.check()


def test_files_of_the_first_schema_come_to_know_their_study(empty_database: Database) -> None:
    with empty_database.engine.begin() as connection:
        _upgrade(connection, "0001")
    old = MetaData()
    file = {"name": "model.keras", "attempt": 1, "path": "x", "media_type": "application/zip", "size_bytes": 1}
    trial = {
        "attempt": 1, "charged": 0, "queue": 1, "epochs": 1, "device_seconds": 0.0, "created_at": 1.7e9,
        "user_attributes": "{}", "system_attributes": "{}", "number": 0, "state": "COMPLETE", "finish_seq": 1,
    }  # fmt: skip
    counters = {"next_number": 1, "sampled_count": 1, "waiting": 0, "complete": 1, "pruned": 0, "fail": 0}
    with empty_database.engine.begin() as connection:
        old.reflect(connection)
        for key in (1, 2):
            own = {"id": key, "public_id": f"st_{key}", "name": f"study {key}", "finished_count": 1, **counters}
            for table, row in (
                ("studies", STUDY | own),
                ("event_counters", {"study_id": key, "last_seq": 1}),
                ("events", {"study_id": key, "seq": 1, "position": key, "type": "study.created", "data": "{}"}),
                ("trials", trial | {"id": key + 10, "study_id": key}),
                ("metrics", {"trial_id": key + 10, "attempt": 1, "epoch": 0, "metrics": "{}", "at": 1.7e9}),
                ("artifacts", file | {"trial_id": key + 10, "details": "{}", "created_at": 0.0}),
            ):
                connection.execute(old.tables[f"fettle_{table}"].insert(), row)
    migrate(empty_database)
    for key in (1, 2):
        bench = Bench(empty_database, key, f"st_{key}")
        with empty_database.read() as session:
            (kept,) = artifacts_of(session, [bench.trial(0).id])[bench.trial(0).id]
        assert (kept.study_id, kept.trial_id) == (key, key + 10)
        assert bench.metrics(kept.trial_id) == [(1, 0)]
        bench.check()


def test_optunas_own_storage_and_ours_share_a_database(database_url: str, empty_database: Database) -> None:
    theirs = optuna.storages.RDBStorage(database_url)
    optuna.create_study(study_name="theirs", storage=theirs).optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=2)
    migrate(empty_database)
    check_schema(empty_database)
    assert len(optuna.load_study(study_name="theirs", storage=theirs).trials) == 2
    theirs.remove_session()
    theirs.engine.dispose()
    with empty_database.engine.connect() as connection:
        assert {"alembic_version", VERSION_TABLE} <= set(inspect(connection).get_table_names())


def test_a_database_of_a_newer_version_is_refused_in_words(database: Database) -> None:
    with database.engine.begin() as connection:
        assert schema_revision(connection) == HEAD
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(Unready, match="newer Fettle"):
        migrate(database)
    with pytest.raises(Unready, match="9999"):
        check_schema(database)


def test_a_database_without_a_schema_is_not_ready(empty_database: Database) -> None:
    with pytest.raises(Unready, match="fettle migrate"):
        check_schema(empty_database)
