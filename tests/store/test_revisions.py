"""From every revision that there has been to this one and back, with a value in every column: nothing is lost."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from app.errors import MigrationRefused
from app.store.compatibility import oldest_code
from app.store.engine import Database
from app.store.migrate import HEAD, check_schema, migrate, migrate_to, schema_revision
from app.store.tables import Worker
from app.store.workers import Offer, register_worker, set_worker_state
from tests.store.revisions import REVISIONS, at_revision, common, contents, fill, scripts, shape

BEFORE = REVISIONS[-2]


def revision_of(database: Database) -> str | None:
    with database.engine.connect() as connection:
        return schema_revision(connection)


@pytest.mark.parametrize("revision", REVISIONS)
def test_all_data_of_a_revision_survive_the_way_to_this_one_and_back(database_url: str, revision: str) -> None:
    with at_revision(database_url, revision) as database:
        fresh = shape(database)
        fill(database)
        before = contents(database)
        assert migrate(database) == HEAD
        assert common(before, contents(database)) == before
        for earlier in reversed(REVISIONS[REVISIONS.index(revision) : -1]):
            migrate_to(database, earlier, allow_loss=True)
            assert common(before, contents(database)) == before, earlier
        assert contents(database) == before
        assert shape(database) == fresh
        assert migrate(database) == HEAD
        assert common(before, contents(database)) == before


def test_going_back_step_by_step_keeps_what_each_older_schema_has(database_url: str) -> None:
    shapes = {}
    with at_revision(database_url, REVISIONS[0]) as database:
        for revision in REVISIONS:
            migrate_to(database, revision)
            shapes[revision] = shape(database)
        fill(database)
        for earlier in reversed(REVISIONS[:-1]):
            before = contents(database)
            migrate_to(database, earlier, allow_loss=True)
            after = contents(database)
            assert common(after, before) == after, earlier
            assert common(before, after) == after, earlier
            assert shape(database) == shapes[earlier]
        oldest = contents(database)
        assert migrate(database) == HEAD
        assert shape(database) == shapes[HEAD]
        assert common(oldest, contents(database)) == oldest


def test_each_migration_says_what_going_back_loses_and_which_code_may_stay(database_url: str) -> None:
    for revision, module in scripts().items():
        if revision > "0001":
            assert module.loses, f'Expected `loses = "…"` in migration {revision}.'
        if revision > "0009":
            assert module.compatible_from <= revision, f'Expected `compatible_from = "…"` in migration {revision}.'


def test_going_back_wants_to_be_told_that_losses_are_meant(database: Database) -> None:
    with pytest.raises(MigrationRefused, match="--allow-loss") as refused:
        migrate_to(database, REVISIONS[0])
    for revision in REVISIONS[1:]:
        assert f"{revision}: " in str(refused.value)
    assert revision_of(database) == HEAD


def test_an_unknown_revision_is_refused_in_words(database: Database) -> None:
    with pytest.raises(MigrationRefused, match="0001"):
        migrate_to(database, "1234", allow_loss=True)


def test_nobody_goes_back_while_a_worker_lives(database: Database) -> None:
    with database.write() as session:
        register_worker(session, "w-live", "here", 1, Offer("cpu", ["function"], {}))
    with pytest.raises(MigrationRefused, match="live workers: w-live"):
        migrate_to(database, BEFORE, allow_loss=True)
    assert revision_of(database) == HEAD
    with database.write() as session:
        set_worker_state(session, "w-live", "STOPPED")
    migrate_to(database, BEFORE, allow_loss=True)
    assert revision_of(database) == BEFORE


def test_a_worker_that_has_been_silent_for_long_holds_nobody_up_and_force_doesnt_ask(database: Database) -> None:
    with database.write() as session:
        register_worker(session, "w-dead", "here", 1, Offer("cpu", ["function"], {}))
        session.execute(update(Worker).values(heartbeat_at=1.0))
    migrate_to(database, BEFORE, allow_loss=True)
    migrate(database)
    with database.write() as session:
        register_worker(session, "w-live", "here", 2, Offer("cpu", ["function"], {}))
    migrate_to(database, BEFORE, allow_loss=True, force=True)
    assert revision_of(database) == BEFORE


def test_nobody_goes_back_while_another_process_has_the_database_open(database: Database) -> None:
    other = Database(database.url.render_as_string(hide_password=False))
    check_schema(other)
    with pytest.raises(MigrationRefused, match="has it open"):
        migrate_to(database, BEFORE, allow_loss=True)
    assert check_schema(other) == HEAD
    other.dispose()
    migrate_to(database, BEFORE, allow_loss=True)
    assert revision_of(database) == BEFORE


def test_the_note_of_the_code_that_may_run_follows_the_schema(database: Database) -> None:
    for revision in reversed(REVISIONS):
        if revision != HEAD:
            migrate_to(database, revision, allow_loss=True)
        with database.engine.connect() as connection:
            assert (oldest_code(connection, revision) or "") <= revision


def test_a_database_that_was_migrated_before_there_was_a_note_gets_one(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE fettle_schema_note")
        assert oldest_code(connection, HEAD) is None
    assert check_schema(database) == HEAD
    migrate(database)
    with database.engine.connect() as connection:
        assert oldest_code(connection, HEAD) is not None
