"""Bringing a database to this code's schema, or to an earlier one, safely from several processes at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from app.errors import MigrationRefused, SchemaTooNew, Unready
from app.store.compatibility import VERSION_TABLE, compatible_from, note, oldest_code, schema_revision
from app.store.engine import Database
from app.store.users import refuse_while_used

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

__all__ = ["HEAD", "VERSION_TABLE", "check_schema", "configured", "migrate", "migrate_to", "schema_revision"]

HEAD = "0014"
"""The newest revision under `migrations/versions`."""
MIGRATION_LOCK = 0x666574746C65
"""Key of PostgreSQL's advisory lock that one migrating process holds ("fettle" in ASCII)."""


def migrate(database: Database) -> str:
    """Create or upgrade the schema; the revision that it is at then. Processes that migrate wait for one another.

    A newer schema that this code may run on is left as it is.

    Raises:
        SchemaTooNew: this code may not run on it.
    """
    with _alone(database) as connection:
        if database.presence is not None:
            database.presence.mark(connection)
        current = schema_revision(connection)
        if current == HEAD and oldest_code(connection, HEAD) is not None:
            return HEAD
        if current is not None and current > HEAD:
            return _fitting(connection, current)
        _upgrade(connection, HEAD)
        return HEAD


def migrate_to(database: Database, revision: str, *, allow_loss: bool = False, force: bool = False) -> str:
    """Bring the schema up or back to `revision`; the revision that it was at.

    Going back needs `allow_loss`, since what later revisions keep is deleted, and that nobody uses the database, unless
    it is `force`d. All of it is one transaction.

    Raises:
        MigrationRefused: the revision isn't known here, or going back isn't allowed.
        SchemaTooNew: the database is at a revision that this code doesn't know.
    """
    with configured() as (config, scripts):
        known = sorted(script.revision for script in scripts.walk_revisions())
        if revision not in known:
            raise MigrationRefused(f"Expected a revision among {', '.join(known)}. Received: {revision!r}")
        with database.read() as session:
            before = schema_revision(session.connection())
        if before is not None and before in known and before > revision:
            if not allow_loss:
                raise MigrationRefused(_losses(scripts, before, revision))
            if not force:
                refuse_while_used(database)
        with _alone(database) as connection:
            current = schema_revision(connection)
            if current is not None and current > revision and current in known:
                if current != before:
                    raise MigrationRefused(f"Expected the schema at {before}. Received {current}: it was changed.")
                from alembic import command

                config.attributes["connection"] = connection
                command.downgrade(config, revision)
                note(connection, revision, compatible_from(scripts, revision))
            elif current != revision:
                _upgrade(connection, revision)
        return before or "none"


def _losses(scripts: ScriptDirectory, current: str, revision: str) -> str:
    """What going back would delete, in words."""
    steps = [script for script in scripts.walk_revisions() if revision < script.revision <= current]
    lost = [f"{s.revision}: {getattr(s.module, 'loses', 'what it added')}" for s in steps]
    return (
        f"Expected --allow-loss to go back from {current} to {revision}. It deletes, by revision, "
        f"{'; '.join(lost)}. Back up the database first."
    )


def _upgrade(connection: Connection, revision: str) -> None:
    from alembic import command  # a quarter of a second that a database at HEAD need not pay

    with configured() as (config, scripts):
        config.attributes["connection"] = connection
        current = schema_revision(connection)
        if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
            raise _too_new(current, oldest_code(connection, current))
        command.upgrade(config, revision)
        note(connection, revision, compatible_from(scripts, revision))


@contextmanager
def configured() -> Iterator[tuple[Config, ScriptDirectory]]:
    """Alembic's configuration for our migrations, and the migrations."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    with as_file(files("migrations")) as folder:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        yield config, ScriptDirectory.from_config(config)


@contextmanager
def _alone(database: Database) -> Iterator[Connection]:
    """A transaction that no other migrating process has at the same time."""
    with database.engine.begin() as connection:
        if not database.is_sqlite:
            # SQLite's BEGIN IMMEDIATE is the lock already.
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        yield connection


def check_schema(database: Database) -> str:
    """The revision of the database's schema, which is this code's or a newer one that this code may run on.

    Raises:
        SchemaTooNew: it is a newer one that needs newer code.
        Unready: it is an older one, or there is none, or another database has the place of the one before.
    """
    if database.presence is not None and database.presence.is_absent:
        found = None  # and a look would make the file
    else:
        with database.read() as session:
            database.check_identity(session)
            connection = session.connection()
            found = schema_revision(connection)
            if found is not None and found > HEAD:
                return _fitting(connection, found)
    if found != HEAD:
        raise Unready(f"Expected the database at schema revision {HEAD}. Received {found}: run `fettle migrate`.")
    return HEAD


def _fitting(connection: Connection, found: str) -> str:
    """The newer revision `found`, where this code may run on it."""
    oldest = oldest_code(connection, found)
    if oldest is None or oldest > HEAD:
        raise _too_new(found, oldest)
    return found


def _too_new(found: str, oldest: str | None) -> SchemaTooNew:
    needed = "" if oldest is None else f" and which needs code of revision {oldest} or later"
    return SchemaTooNew(
        f"Expected a database schema up to revision {HEAD}. Received {found}, which a newer Fettle wrote{needed}: "
        "upgrade this process."
    )
