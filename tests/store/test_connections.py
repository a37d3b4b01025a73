"""Connections: new files opened by many at once, and connections that outlive their pool."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from app.store.engine import Database


def test_many_who_open_a_new_file_at_once_all_succeed(tmp_path: Path) -> None:
    """The first of them switches the file to WAL: it needs the file alone, and SQLite does not wait for that."""
    together, errors = 6, []
    for attempt in range(40):
        url, barrier = f"sqlite:///{tmp_path / f'{attempt}.db'}", threading.Barrier(together)

        def use(url: str = url, barrier: threading.Barrier = barrier) -> None:
            database = Database(url)
            barrier.wait()
            try:
                with database.engine.begin() as connection:
                    connection.execute(text("CREATE TABLE IF NOT EXISTS visits (at TEXT)"))
                    connection.execute(text("INSERT INTO visits VALUES ('now')"))
            except DBAPIError as error:
                errors.append(error)
            database.dispose()

        threads = [threading.Thread(target=use) for _ in range(together)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        database = Database(url)
        with database.engine.connect() as connection:
            assert errors == []
            assert connection.scalar(text("SELECT count(*) FROM visits")) == together
            assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        database.dispose()


def test_a_file_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}")
    with pytest.raises(OperationalError, match="unable to open"), database.engine.connect():
        pass
    database.dispose()


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_connection_in_use_when_the_database_is_closed_is_closed_when_it_comes_back(
    database: Database, kind: str
) -> None:
    with getattr(database, kind)() as session:
        session.execute(text("SELECT 1"))
        driver = session.connection().connection.driver_connection
        database.dispose()
        assert session.scalar(text("SELECT 2")) == 2
    if database.is_sqlite:
        with pytest.raises(Exception, match="closed database"):
            driver.execute("SELECT 3")
    else:
        assert driver.closed


def test_a_database_that_was_closed_can_be_used_again(database: Database) -> None:
    for _ in range(3):
        database.dispose()
        with database.write() as session:
            assert session.scalar(text("SELECT 1")) == 1
