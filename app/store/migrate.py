"""Bringing a database to this code's schema, safely from several processes at once."""

from __future__ import annotations

from importlib.resources import as_file, files

from sqlalchemy import Connection, inspect, text

from app.errors import Unready
from app.store.engine import Database

HEAD = "0012"
"""The newest revision under `migrations/versions`."""
VERSION_TABLE = "fettle_alembic_version"
MIGRATION_LOCK = 0x666574746C65
"""Key of PostgreSQL's advisory lock that one migrating process holds ("fettle" in ASCII)."""


def schema_revision(connection: Connection) -> str | None:
    """The revision that the database is at, or None where it has no tables of ours."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant


def migrate(database: Database) -> None:
    """Create or upgrade the schema. Processes that start together wait for one another.

    Raises:
        Unready: the database is newer than this code.
    """
    with database.engine.begin() as connection:
        if not database.is_sqlite:
            # SQLite's BEGIN IMMEDIATE is the lock already.
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        if schema_revision(connection) == HEAD:
            return
        _upgrade(connection, HEAD)


def _upgrade(connection: Connection, revision: str) -> None:
    from alembic import command  # a quarter of a second that a database at HEAD need not pay
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    with as_file(files("migrations")) as folder:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.attributes["connection"] = connection
        current = schema_revision(connection)
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if current is not None and current not in known:
            raise Unready(
                f"Expected a database schema up to revision {HEAD}. Received {current}, which a newer Fettle wrote: "
                "upgrade this process."
            )
        command.upgrade(config, revision)


def check_schema(database: Database) -> None:
    """Return where the database is reached and has this code's schema.

    Raises:
        Unready: it has another schema, or none.
    """
    with database.read() as session:
        found = schema_revision(session.connection())
    if found != HEAD:
        raise Unready(f"Expected the database at schema revision {HEAD}. Received {found}: run `fettle migrate`.")
