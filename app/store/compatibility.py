"""Which code may run on a schema: a note beside Alembic's version, written by whoever migrates.

A migration says in `compatible_from` the oldest revision whose code goes on working after it; one that says nothing is
its own code's alone. A database's note is the latest of all its migrations', so that code at revision N may run on it
where the note is N or earlier. Revisions are numbers of four digits: their texts compare as they follow one another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Column, Connection, MetaData, String, Table, delete, inspect, select

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

VERSION_TABLE = "fettle_alembic_version"
NOTE_TABLE = "fettle_schema_note"

# No migration makes it: it is written before the first and after the last, as Alembic's own table is.
_note = Table(
    NOTE_TABLE,
    MetaData(),
    Column("revision", String(32), primary_key=True),
    Column("compatible_from", String(32), nullable=False),
)


def schema_revision(connection: Connection) -> str | None:
    """The revision that the database is at, or None where it has no tables of ours."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32)))
    return connection.scalar(select(version.c.version_num))


def oldest_code(connection: Connection, revision: str) -> str | None:
    """The oldest code that may run on the database, which is at `revision`; None where nobody noted it."""
    if not inspect(connection).has_table(NOTE_TABLE):
        return None
    return connection.scalar(select(_note.c.compatible_from).where(_note.c.revision == revision))


def note(connection: Connection, revision: str, compatible_from: str) -> None:
    """Note what code may run on the database, which is at `revision` now."""
    if oldest_code(connection, revision) == compatible_from:
        return
    _note.create(connection, checkfirst=True)
    connection.execute(delete(_note))
    connection.execute(_note.insert().values(revision=revision, compatible_from=compatible_from))


def compatible_from(scripts: ScriptDirectory, revision: str) -> str:
    """The oldest code that may run on a database at `revision`, by what the migrations up to it say."""
    said = [
        getattr(script.module, "compatible_from", script.revision)
        for script in scripts.walk_revisions()
        if script.revision <= revision
    ]
    return str(max(said))
