"""Who uses a database now: looked at before its schema is taken back under them."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

from sqlalchemy import Column, Double, MetaData, String, Table, select, text

from app.errors import MigrationRefused
from app.store.engine import APPLICATION_NAME, Database, now
from app.store.workers import LIVE_HEARTBEAT_S

CLOSING_S = 2.0
"""PostgreSQL shows a connection for a moment after it was closed: it is looked for again for this long."""
CLOSING_LOOK_S = 0.1
SHOWN = 5
"""Workers that are named; of more their number is said."""

# Only the columns that every revision has: the schema may be an older one.
_workers = Table(
    "fettle_workers",
    MetaData(),
    Column("id", String),
    Column("state", String),
    Column("heartbeat_at", Double),
)


def refuse_while_used(database: Database) -> None:
    """Return where no worker lives on the database and no other process has it open.

    Raises:
        MigrationRefused: some process does.
    """
    alive = (_workers.c.heartbeat_at > now() - LIVE_HEARTBEAT_S) & (_workers.c.state != "STOPPED")
    with database.read() as session:
        live = list(session.scalars(select(_workers.c.id).where(alive).order_by(_workers.c.id)))
    if live:
        more = f" and {len(live) - SHOWN} more" if len(live) > SHOWN else ""
        raise _refused(f"live workers: {', '.join(live[:SHOWN])}{more}")
    others = _sqlite_is_open(database) if database.is_sqlite else _postgresql_connections(database)
    if others:
        raise _refused("a process of Fettle, such as an API, that has it open")


def _refused(found: str) -> MigrationRefused:
    return MigrationRefused(
        f"Expected a database that nobody uses. Received {found}. Stop them first (a worker that was killed counts for "
        f"{LIVE_HEARTBEAT_S:g} seconds), or say --force."
    )


def _postgresql_connections(database: Database) -> bool:
    query = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = :name AND pid <> pg_backend_pid()"
    )
    database.dispose()  # our own idle connections are none of others
    deadline = time.monotonic() + CLOSING_S
    while True:
        with database.read() as session:
            found = bool(session.scalar(query, {"name": APPLICATION_NAME}))
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(CLOSING_LOOK_S)


def _sqlite_is_open(database: Database) -> bool:
    """Whether another connection has the file open: it can't leave WAL mode then. The next one enters it again."""
    database.dispose()
    with closing(sqlite3.connect(str(database.url.database), timeout=1.0)) as connection:
        try:
            connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.OperationalError:
            return True
    return False
