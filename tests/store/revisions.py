"""Every revision of the schema, filled by what the database itself says of its tables: no column is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Connection, Float, Integer, MetaData, String, Table, inspect, select

from app.store.compatibility import NOTE_TABLE, VERSION_TABLE
from app.store.engine import Database
from app.store.migrate import HEAD, configured, migrate_to

NASTY = "'\"%s:x\\n{}\n\té漢🎉"
"""Text that a migration could mangle."""
ROWS = 3
"""Rows of each table; the last has NULL wherever it may."""

Rows = dict[str, list[dict[str, Any]]]


def scripts() -> dict[str, Any]:
    """The module of each revision's migration, in order."""
    with configured() as (_, found):
        return {script.revision: script.module for script in reversed(list(found.walk_revisions()))}


REVISIONS = list(scripts())
assert REVISIONS[-1] == HEAD


@contextmanager
def at_revision(url: str, revision: str) -> Iterator[Database]:
    """An empty database brought to a revision."""
    database = Database(url)
    try:
        migrate_to(database, revision)
        yield database
    finally:
        database.dispose()


def tables(connection: Connection) -> list[Table]:
    """Our tables as the database has them, parents first."""
    metadata = MetaData()
    metadata.reflect(connection)
    ours = [t for t in metadata.sorted_tables if t.name.startswith("fettle_")]
    return [t for t in ours if t.name not in (VERSION_TABLE, NOTE_TABLE)]


def fill(database: Database) -> None:
    """Add rows with a value in every column of every table."""
    added: Rows = {}
    with database.engine.begin() as connection:
        for table in tables(connection):
            rows = [_row(table, i, added) for i in range(ROWS)]
            connection.execute(table.insert(), rows)
            added[table.name] = rows


def _row(table: Table, i: int, added: Rows) -> dict[str, Any]:
    return {column.name: _value(column, i, added) for column in table.columns}


def _value(column: Column[Any], i: int, added: Rows) -> Any:
    if column.nullable and i == ROWS - 1:
        return None
    for key in column.foreign_keys:
        return added[key.column.table.name][i][key.column.name]
    kind = column.type
    if isinstance(kind, Boolean):
        return i % 2 == 0
    if isinstance(kind, BigInteger):
        return 2**40 + i
    if isinstance(kind, Integer):
        return 1000 + i
    if isinstance(kind, Float):
        return 1.7e9 + i / 8
    assert isinstance(kind, String), f"Expected a type with values here. Received: {column} {kind!r}"
    return f"{i} {column.name} {NASTY}"[: kind.length]


def contents(database: Database) -> Rows:
    """All rows of our tables, in the order of their primary keys."""
    with database.engine.connect() as connection:
        return {
            table.name: [
                dict(row._mapping) for row in connection.execute(select(table).order_by(*table.primary_key.columns))
            ]
            for table in tables(connection)
        }


def common(rows: Rows, other: Rows) -> Rows:
    """The part of `rows` in tables and columns that `other` has too."""
    return {
        name: [{key: value for key, value in row.items() if key in other[name][0]} for row in found]
        for name, found in rows.items()
        if other.get(name)
    }


def shape(database: Database) -> Mapping[str, Any]:
    """All that the database says of our tables but their rows."""
    found = {}
    with database.engine.connect() as connection:
        looked = inspect(connection)
        for name in (table.name for table in tables(connection)):
            found[name] = {
                "columns": {c["name"]: (str(c["type"]), c["nullable"], c["default"]) for c in looked.get_columns(name)},
                "key": looked.get_pk_constraint(name),
                "unique": sorted(looked.get_unique_constraints(name), key=str),
                "indexes": {index["name"]: _said(index) for index in looked.get_indexes(name)},
                "foreign": sorted(looked.get_foreign_keys(name), key=str),
            }
    return found


def _said(index: Any) -> Any:
    """What an index says of itself; a condition is an object that equals no other."""
    return {**index, "dialect_options": {key: str(value) for key, value in index["dialect_options"].items()}}
