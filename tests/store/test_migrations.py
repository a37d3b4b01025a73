"""Migrations on both databases: at once from several processes, beside other tools' tables, with data, and in words."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import as_file, files

import optuna
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from app.errors import Unready
from app.store import lifecycle
from app.store.artifacts import artifacts_of
from app.store.engine import Database
from app.store.migrate import HEAD, VERSION_TABLE, check_schema, migrate, schema_revision
from app.store.tables import Base
from tests.processes import ROOT
from tests.store.conftest import Bench, definition

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


def _downgrade(connection: Connection, revision: str) -> None:
    with as_file(files("migrations")) as folder:
        config = Config()
        config.set_main_option("script_location", str(folder))
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def test_files_of_the_first_schema_come_to_know_their_study(empty_database: Database) -> None:
    migrate(empty_database)
    benches = []
    for name in ("one", "two"):
        with empty_database.write() as session:
            made = definition(name=name)
            study = lifecycle.create_study(session, made, project="default", created_by=None, sample_limit=None)
            benches.append(Bench(empty_database, study.id, study.public_id))
    for bench in benches:
        (reservation,) = bench.running()
        bench.record(bench.report(reservation, 0, 1.0))
        bench.finish(reservation)
    with empty_database.engine.begin() as connection:
        _downgrade(connection, "0001")
        for bench in benches:
            connection.execute(
                text(
                    "INSERT INTO fettle_artifacts (trial_id, name, attempt, path, media_type, size_bytes, details,"
                    " created_at) VALUES (:trial, 'model.keras', 1, 'x', 'application/zip', 1, '{}', 0)"
                ),
                {"trial": bench.study_id},  # each study has one trial: their ids are the same
            )
    migrate(empty_database)
    for bench in benches:
        with empty_database.read() as session:
            (file,) = artifacts_of(session, [bench.trial(0).id])[bench.trial(0).id]
        assert file.study_id == bench.study_id
        assert bench.metrics(file.trial_id) == [(1, 0)]
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
