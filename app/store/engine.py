"""Connections: one object a database, with short write transactions and separate reads.

SQLite takes `BEGIN IMMEDIATE` for writes (a deferred one lets two writers both believe they won) and runs in WAL mode;
reads go through a second engine with deferred transactions, so that an open reader never locks writers out.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import structlog
from sqlalchemy import Double, create_engine, event, text
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from app.errors import Unready
from app.store.presence import FilePresence, WatchedConnection, is_moved

SQLITE_BUSY_TIMEOUT_S = 30
WAL_SWITCH_PAUSE_S = 0.01
"""Pause between two tries of switching a new SQLite file to WAL, while another process is at it."""
READ_POOL_SIZE = 8
WRITE_POOL_SIZE = 4
POSTGRESQL_MAX_OVERFLOW = 8
"""Connections beyond the pool that a process opens for a rush."""
CONNECT_TIMEOUT_S = 10
"""A PostgreSQL server that doesn't answer for this long is not there; a URL's `connect_timeout` comes first."""
APPLICATION_NAME = "fettle"
"""What our connections are called in `pg_stat_activity`; a URL's `application_name` comes first."""
IDLE_BEFORE_PING_S = 1.0
"""A pooled PostgreSQL connection idle for longer is tried before it is used: the server may have restarted."""
RETRY_DELAYS_S = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0)
"""Waits between tries of a transaction whose connection broke or that lost a deadlock: about 8 s in all."""
SQLITE_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
"""Primary result codes of errors that may pass: another one's lock, and a disk that is full or doesn't answer."""
PATIENT_DELAY_S = 1.0
"""Wait between the tries after these, of who has nothing to do without the database."""

T = TypeVar("T")
log = structlog.get_logger(__name__)


class now(FunctionElement[float]):  # noqa: N801 - reads as SQL
    """The database's clock in Unix seconds, moving within a transaction."""

    type = Double()
    inherit_cache = True
    name = "fettle_now"


@compiles(now, "sqlite")
def _now_sqlite(_element: now, _compiler: SQLCompiler, **_: Any) -> str:
    # SQLite 3.40 has no unixepoch('subsec').
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(_element: now, _compiler: SQLCompiler, **_: Any) -> str:
    # now() stands still in a transaction.
    return "(extract(epoch from clock_timestamp())::double precision)"


class Database:
    """A database by URL: `sqlite:///file` or `postgresql+psycopg://…`. Thread-safe; not to be carried across a fork."""

    def __init__(self, url: str, *, is_patient: Callable[[], bool] = lambda: False) -> None:
        """While `is_patient`, what `run` and `retrying` do is tried until the database answers."""
        self.url: URL = _checked(url)
        self._is_patient = is_patient
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.presence: FilePresence | None = None
        """Of an SQLite database: whether its file is still the one that was opened."""
        if self.is_sqlite:
            self.presence = FilePresence(self.url.database or "")
            self._writer = _sqlite_engine(self.url, self.presence, "BEGIN IMMEDIATE", WRITE_POOL_SIZE)
            self._reader = _sqlite_engine(self.url, self.presence, "BEGIN DEFERRED", READ_POOL_SIZE)
        else:
            self._writer = self._reader = _postgresql_engine(self.url)
        self._is_disposed = False
        self._identity: int | None = None
        for engine in {self._writer, self._reader}:
            event.listen(engine, "checkin", self._close_late)

    @property
    def engine(self) -> Engine:
        """The engine of write transactions."""
        return self._writer

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session in one write transaction: committed at the end of the block, rolled back where it raises."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reads that see one moment (SQLite) or each statement's moment (PostgreSQL)."""
        with Session(self._reader, expire_on_commit=False, autoflush=False) as session:
            yield session

    def run(self, work: Callable[[Session], T]) -> T:
        """The result of `work` in a write transaction, tried again where the connection broke or a deadlock was lost.

        A commit whose answer was lost may have happened: `work` must be safe to repeat (fenced writes are).
        """

        def once() -> T:
            with self.write() as session:
                return work(session)

        return self.retrying(once)

    def retrying(self, call: Callable[[], T]) -> T:
        """The result of `call`, made again where the database's connection broke or a deadlock was lost."""
        told = False
        for delay_s in self._delays_s():
            try:
                return call()
            except DBAPIError as error:
                if self._may_return(error):
                    if not told:
                        log.warning("database_gone", error=str(error.orig))
                    told = True
                elif not is_transient(error):
                    raise
                time.sleep(delay_s)
        return call()

    def _may_return(self, error: DBAPIError) -> bool:
        """Whether the database's file is away, and the caller has nothing better to do than wait for it."""
        return self._is_patient() and is_moved(error.orig) and self.presence is not None and self.presence.may_come_back

    def _delays_s(self) -> Iterator[float]:
        yield from RETRY_DELAYS_S
        while self._is_patient():
            yield PATIENT_DELAY_S

    def set_apart(self) -> None:
        """Have the copy of an SQLite file be told from the file that it was copied from (see `FilePresence`)."""
        if self.presence is not None:
            with self._writer.begin() as connection:
                self.presence.mark(connection, anew=True)

    def check_identity(self, session: Session) -> None:
        """Return while this is the database that it was at the first call; `session` is one of `read`.

        Raises:
            OperationalError: the file of an SQLite database, or one beside it, is another or away (see `is_moved`).
            Unready: a PostgreSQL database was dropped, and another made by its name.
        """
        if self.presence is not None:
            try:
                self.presence.check()
            except sqlite3.OperationalError as error:
                raise OperationalError("check", None, error) from None
            return
        found = session.scalar(text("SELECT oid::bigint FROM pg_database WHERE datname = current_database()"))
        if self._identity is None:
            self._identity = found
        elif found != self._identity:
            raise Unready(
                "Expected the database that this process began with. Received another of its name: it was dropped and "
                "made again. Restart the service to work with that one."
            )

    def dispose(self) -> None:
        """Close all pooled connections; those that threads still use are closed once they come back."""
        self._is_disposed = True
        self._writer.dispose()
        self._reader.dispose()
        if self.presence is not None:
            self.presence.forget()

    def _close_late(self, _connection: Any, record: ConnectionPoolEntry) -> None:
        # It would return to the pool that it was taken from, which nobody has any more.
        if self._is_disposed:
            record.invalidate()


def is_transient(error: DBAPIError) -> bool:
    """Whether a database error may pass by itself: a broken connection, a restart, a lock, a deadlock, a full disk."""
    if error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state[:2] in {"08", "40", "57", "53"} or state == "55P03"
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in SQLITE_PASSING
    said = str(error.orig).lower()
    return any(word in said for word in ("locked", "busy", "connection", "server closed"))


def _checked(url: str) -> URL:
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend not in {"sqlite", "postgresql"}:
        raise ValueError(f"Expected a sqlite:/// or postgresql+psycopg:// URL. Received a URL for {backend!r}")
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.database in {None, "", ":memory:"}:
        raise ValueError("Expected an SQLite file: several processes share the database. Received one in memory")
    return parsed


def _postgresql_engine(url: URL) -> Engine:
    given = {"fallback_application_name": APPLICATION_NAME}
    if "connect_timeout" not in url.query:
        given["connect_timeout"] = str(CONNECT_TIMEOUT_S)
    sizes = {"pool_size": READ_POOL_SIZE, "max_overflow": POSTGRESQL_MAX_OVERFLOW}
    engine = create_engine(url, pool_timeout=30, connect_args=given, **sizes)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # A plan made while a table was small reads all of it, and a prepared statement keeps its plan until the next
        # ANALYZE: a minute, in which a study may finish thousands of trials.
        connection.execute("SET enable_seqscan = off")
        # Servers before 18 take the price of a scan that can't be avoided for a reason to compile.
        connection.execute("SET jit = off")
        connection.commit()

    @event.listens_for(engine, "checkin")
    def _note_idle(_connection: Any, record: Any) -> None:
        record.info["idle_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _ping(connection: Any, record: Any, _proxy: Any) -> None:
        # As pool_pre_ping, but not for connections in steady use: a ping is a round trip.
        if time.monotonic() - record.info.get("idle_since", time.monotonic()) < IDLE_BEFORE_PING_S:
            return
        try:
            connection.execute("SELECT 1")
            connection.rollback()
        except Exception as error:
            raise DisconnectionError("The connection broke while it was idle.") from error

    return engine


def _sqlite_engine(url: URL, presence: FilePresence, begin: str, pool_size: int) -> Engine:
    given = {"timeout": SQLITE_BUSY_TIMEOUT_S, "factory": WatchedConnection}
    engine = create_engine(url, pool_size=pool_size, max_overflow=32, connect_args=given)
    writes = begin == "BEGIN IMMEDIATE"

    @event.listens_for(engine, "do_connect")
    def _never_make_another(_dialect: Any, _record: Any, arguments: list[Any], options: dict[str, Any]) -> None:
        # SQLite makes a file that isn't there: right for the first connection alone.
        if presence.is_known:
            presence.check_file()
            arguments[0], options["uri"] = f"file:{quote(str(presence.path))}?mode=rw", True

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        _switch_to_wal(cursor)
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA cache_size=-16000")
        cursor.close()
        presence.opened(connection)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        try:
            presence.check_file()
        except sqlite3.OperationalError as error:
            raise OperationalError(begin, None, error) from None
        connection.exec_driver_sql(begin)
        if writes:
            presence.begun()

    return engine


def _switch_to_wal(cursor: sqlite3.Cursor) -> None:
    """Put the file in WAL mode, which it keeps.

    The first switch of a new file needs it alone, and fails at once while another process does the same: SQLite's busy
    timeout does not cover it.
    """
    deadline = time.monotonic() + SQLITE_BUSY_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
            if not is_busy or time.monotonic() >= deadline:
                raise
            time.sleep(WAL_SWITCH_PAUSE_S)
        else:
            return
