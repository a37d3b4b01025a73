"""A PostgreSQL server: its version, its connections, and transactions that hold up others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from app.doctor.examination import Examination
from app.doctor.findings import Finding, failed, ok, warning
from app.store import server
from app.store.engine import POSTGRESQL_MAX_OVERFLOW, READ_POOL_SIZE
from app.store.workers import live_offers

OLDEST_VERSION = 13
"""The first one with `pg_current_xact_id`, which orders the firehose."""
CONNECTIONS_A_PROCESS = READ_POOL_SIZE + POSTGRESQL_MAX_OVERFLOW
LONG_TRANSACTION_S = 60.0


def postgresql_server(examination: Examination) -> Iterator[Finding]:
    """Ask the server about itself."""
    if examination.is_sqlite or not examination.is_reached:
        return
    with examination.reading() as session:
        row, oldest = server.about(session), server.oldest_writer(session)
        workers = len(live_offers(session)) if examination.has_schema else 0
        may_write = server.may_write(session) if examination.has_schema else True
    yield _version(row.version)
    yield _connections(row, workers)
    yield _writable(bool(row.recovery), bool(may_write))
    expected = f"no writing transaction older than {LONG_TRANSACTION_S:g} s"
    if oldest is not None and oldest.age > LONG_TRANSACTION_S:
        found = f"one of {oldest.age:,.0f} s by {oldest.application_name or 'an unnamed program'} (pid {oldest.pid})"
        advice = "`GET /v1/events` stands still behind it, and its locks may hold up trials: end that program."
        yield warning("postgresql transactions", expected, found, advice)
    else:
        yield ok("postgresql transactions", expected, "none")


def _version(version: int) -> Finding:
    expected = f"PostgreSQL {OLDEST_VERSION} or newer"
    if version < OLDEST_VERSION:
        return failed("postgresql version", expected, f"PostgreSQL {version}", "Upgrade the server.")
    return ok("postgresql version", expected, f"PostgreSQL {version}")


def _connections(row: Any, workers: int) -> Finding:
    needed = CONNECTIONS_A_PROCESS * (workers + 1)
    expected = f"room for {CONNECTIONS_A_PROCESS} connections of each process"
    found = f"{row.used} used of {row.allowed}; {workers} live workers and one API process may want {needed}"
    if row.allowed - row.used < 2:
        advice = "Raise max_connections, or put a pooler in session mode between."
        return failed("postgresql connections", expected, found, advice)
    if needed > row.allowed:
        advice = "Raise max_connections before all of them are busy at once, or put a pooler in session mode between."
        return warning("postgresql connections", expected, found, advice)
    return ok("postgresql connections", expected, found)


def _writable(in_recovery: bool, may_write: bool) -> Finding:
    expected = "a server and a role that write"
    if in_recovery:
        return failed("postgresql writes", expected, "a standby", "Point FETTLE_DATABASE_URL at the primary.")
    if not may_write:
        advice = "GRANT SELECT, INSERT, UPDATE, DELETE ON the tables fettle_*, or use the role that owns them."
        return failed("postgresql writes", expected, "a role that may not write fettle_studies", advice)
    return ok("postgresql writes", expected, "both do")
