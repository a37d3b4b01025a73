"""What a PostgreSQL server says of itself."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

_ABOUT = text(
    "SELECT current_setting('server_version_num')::int / 10000 AS version, pg_is_in_recovery() AS recovery, "
    "current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS allowed, "
    "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used"
)
_OLDEST = text(
    "SELECT pid, application_name, extract(epoch FROM clock_timestamp() - xact_start)::float AS age "
    "FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 1"
)
_MAY_WRITE = text("SELECT has_table_privilege('fettle_studies', 'INSERT, UPDATE, DELETE')")


def about(session: Session) -> Row[Any]:
    """Its major `version`, whether it is in `recovery`, connections `allowed` to clients, and `used`."""
    return session.execute(_ABOUT).one()


def oldest_writer(session: Session) -> Row[Any] | None:
    """The writing transaction that began first: `pid`, `application_name` and `age` in seconds; ours is left out."""
    return session.execute(_OLDEST).one_or_none()


def may_write(session: Session) -> bool:
    """Whether this user may write studies."""
    return bool(session.scalar(_MAY_WRITE))
