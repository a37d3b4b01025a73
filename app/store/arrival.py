"""Waiting for a database that comes later than the process: a server that starts, a schema that another migrates."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from app.errors import SchemaTooNew, Unready
from app.store.engine import Database

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 1.0
"""Pauses between tries: doubling from the first to the longest."""
TELL_S = 5.0
"""Seconds between two lines that say what is waited for."""
REFUSALS = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "not permitted to log in",
    "permission denied",
    "SSL",
    "certificate",
    "unable to open database file",
)
"""Words of answers that don't change by waiting. A server that answers in another language is waited for."""

T = TypeVar("T")
Pause = Callable[[float, Unready | DBAPIError], object]
log = structlog.get_logger(__name__)


def _sleep(seconds: float, _because: Unready | DBAPIError) -> None:
    time.sleep(seconds)


def await_database(database: Database, use: Callable[[], T], wait_s: float, pause: Pause = _sleep) -> T:
    """The result of `use`, tried again for at most `wait_s` seconds while the database is not there or not migrated.

    `pause` sleeps so many seconds because of an error; what it raises ends the wait.

    Raises:
        Unready: it did not come in time, or refuses: a wrong password, a database that doesn't exist.
    """
    began = time.monotonic()
    told_at, pause_s = float("-inf"), FIRST_PAUSE_S
    while True:
        try:
            return use()
        except SchemaTooNew:
            raise
        except (Unready, DBAPIError) as error:
            because, reason = error, _reason(database, error)
            now = time.monotonic()
            left_s = wait_s - (now - began)
            if not _may_come(error):
                raise Unready(reason) from None
            if left_s <= 0:
                raise Unready(f"{reason} (waited {wait_s:g} s)" if wait_s else reason) from None
        if now - told_at >= TELL_S:
            log.warning("database_awaited", waited_s=round(now - began, 1), at_most_s=wait_s, reason=reason)
            told_at = now
        pause(min(pause_s, left_s), because)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _reason(database: Database, error: Unready | DBAPIError) -> str:
    if isinstance(error, Unready):
        return error.detail
    where = database.url.render_as_string(hide_password=True)
    said = " ".join(str(error.orig).split())
    return f"Expected a database at {where}. Received: {said}"


def _may_come(error: Unready | DBAPIError) -> bool:
    if isinstance(error, Unready):
        return True  # somebody else may be migrating it
    said = str(error.orig)
    return isinstance(error, OperationalError | InterfaceError) and not any(word in said for word in REFUSALS)
