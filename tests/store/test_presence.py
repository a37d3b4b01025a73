"""Whether the database is still the one that a process opened, seen from the process itself."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import OperationalError

from app.errors import Unready
from app.settings import Settings
from app.store.engine import Database
from app.store.migrate import check_schema, migrate
from app.store.presence import is_moved
from app.store.tables import Project
from app.upkeep.backup import back_up


def write(database: Database, name: str, size: int = 10) -> None:
    with database.write() as session:
        session.execute(insert(Project).values(name=name, description="x" * size, created_at=0.0))


def refused(work: Callable[[], object]) -> None:
    with pytest.raises(OperationalError) as raised:
        work()
    assert is_moved(raised.value.orig)


def file_of(database: Database) -> Path:
    return Path(str(database.url.database))


def test_a_commit_into_a_file_that_lost_its_name_meanwhile_is_not_told_as_done(sqlite_database: Database) -> None:
    write(sqlite_database, "before")

    def lose() -> None:
        with sqlite_database.write() as session:
            session.execute(insert(Project).values(name="lost", created_at=0.0))
            file_of(sqlite_database).unlink()

    refused(lose)
    refused(lambda: check_schema(sqlite_database))
    refused(lambda: write(sqlite_database, "after"))
    assert not file_of(sqlite_database).exists()


def test_a_copy_of_the_database_itself_written_over_it_is_noticed(sqlite_database: Database, tmp_path: Path) -> None:
    write(sqlite_database, "before")
    url = sqlite_database.url.render_as_string(hide_password=False)
    back_up(Settings(data_dir=tmp_path / "data", database_url=url), tmp_path / "backup")
    (copy,) = (tmp_path / "backup").glob("*.db")
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT count(*) FROM fettle_projects WHERE name = 'before'").fetchone() == (1,)
    shutil.copyfile(copy, file_of(sqlite_database))
    refused(lambda: write(sqlite_database, "after"))


def test_checkpoints_growth_and_other_processes_are_no_replacement(sqlite_database: Database) -> None:
    other = Database(sqlite_database.url.render_as_string(hide_password=False))
    for number in range(40):
        write(sqlite_database, f"mine-{number}", 200_000)
        write(other, f"theirs-{number}", 200_000)
        if number % 10 == 0:
            with closing(sqlite3.connect(file_of(sqlite_database))) as third:
                third.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    check_schema(sqlite_database)
    other.dispose()
    write(sqlite_database, "after")
    assert file_of(sqlite_database).stat().st_size > 10_000_000


def test_what_is_looked_at_for_a_transaction_is_four_files(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(sqlite_database, "first")
    with sqlite_database.read() as session:
        session.execute(text("SELECT 1"))
    seen = []
    stat = Path.stat

    def counted(path: Path, **options: bool) -> object:
        seen.append(path.name)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", counted)
    write(sqlite_database, "second")
    name = file_of(sqlite_database).name
    assert sorted(seen) == sorted([name, name, f"{name}-wal", f"{name}-shm"])
    seen.clear()
    with sqlite_database.read() as session:
        session.execute(text("SELECT 1"))
    assert seen == [name]


def test_a_look_at_the_schema_makes_no_file(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(Unready, match="Received None"):
        check_schema(database)
    assert list(tmp_path.iterdir()) == []
    migrate(database)
    assert check_schema(database)
    database.dispose()


def test_a_postgresql_database_that_was_dropped_and_made_again_is_noticed(postgres_database: Database) -> None:
    check_schema(postgres_database)
    name = str(postgres_database.url.database)
    postgres_database.engine.dispose()
    server = Database(postgres_database.url.set(database="postgres").render_as_string(hide_password=False))
    with server.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    server.dispose()
    again = Database(postgres_database.url.render_as_string(hide_password=False))
    migrate(again)
    again.dispose()
    with pytest.raises(Unready, match="dropped and made again"):
        check_schema(postgres_database)
