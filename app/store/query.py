"""Statements over many rows, and rows whose name is theirs alone.

A statement's text never changes with the number of rows: driver and server prepare it once. SQLite runs it over a
list of rows in C. PostgreSQL's driver would send each row by itself, so there the columns go as arrays, a parameter
each, and written by hand: the driver takes 3 ms for a list of 180 texts, the server 0.5 ms to store them. Lists in
conditions are one parameter as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    String,
    Table,
    Text,
    TypeDecorator,
    any_,
    bindparam,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.domain.json import dumps
from app.errors import NameTaken
from app.store.tables import Base

DIALECTS = ("sqlite", "postgresql")


def lines(texts: Sequence[str]) -> str:
    r"""Texts as one parameter for PostgreSQL's `string_to_array(…, E'\n')`.

    None is empty or has a line break within: they are JSON, tokens, and words of our own.
    """
    return "\n".join(texts)


@dataclass(frozen=True, slots=True)
class Along:
    """PostgreSQL: a write that goes along in another statement, as the expression `part` of its WITH.

    The way to the server and back costs as much as most writes.
    """

    part: str
    values: dict[str, Any]


class Rows:
    """Adds rows of the columns `names` to a table, in the order given: numbers, and texts as `lines` takes them."""

    def __init__(self, table: Table, *names: str) -> None:
        columns = ", ".join(f'"{name}"' for name in names)
        marks = ", ".join("?" for _ in names)
        self._is_text = [isinstance(table.c[name].type, String) for name in names]
        self._parameters = [f"{table.name}_{name}" for name in names]
        arrays = ", ".join(
            f"string_to_array(%({table.name}_{name})s, E'\\n')"
            if is_text
            else f"%({table.name}_{name})s::{_postgresql_type(table.c[name])}[]"
            for name, is_text in zip(names, self._is_text, strict=True)
        )
        # The names are those of our own tables.
        self._sqlite = f"INSERT INTO {table.name} ({columns}) VALUES ({marks})"  # noqa: S608
        self._postgresql = f"INSERT INTO {table.name} ({columns}) SELECT * FROM unnest({arrays})"  # noqa: S608
        self._part = f"added_{table.name} AS ({self._postgresql})"

    def add(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert the rows, each a tuple in the order of the columns."""
        if not rows:
            return
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(self._sqlite, list(rows))
        else:
            connection.exec_driver_sql(self._postgresql, self._values(rows))

    def add_along(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> list[Along]:
        """Insert the rows on SQLite; on PostgreSQL give what inserts them along with something else."""
        if connection.dialect.name == "sqlite" or not rows:
            self.add(connection, rows)
            return []
        return [Along(self._part, self._values(rows))]

    def _values(self, rows: Sequence[tuple[Any, ...]]) -> dict[str, str]:
        columns = zip(self._parameters, self._is_text, zip(*rows, strict=True), strict=True)
        return {name: lines(column) if is_text else numbers(column) for name, is_text, column in columns}


def _postgresql_type(column: Column[Any]) -> str:
    return column.type.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]


def numbers(values: Sequence[float]) -> str:
    """Numbers as the text of a PostgreSQL array."""
    return f"{{{','.join(map(str, values))}}}"


def unindexed(column: Column[Any]) -> ColumnElement[Any]:
    """A column of numbers whose index SQLite must not take for a condition or an order: it knows no statistics.

    A plus before a name is SQLite's own way to say so, and means nothing elsewhere.
    """
    return literal_column(f"+{column.table.name}.{column.name}", column.type)


class _List(TypeDecorator[Sequence[Any]]):
    """A list of numbers or of `lines` as one text: a JSON array on SQLite."""

    impl = Text
    cache_ok = True

    def __init__(self, is_text: bool) -> None:
        super().__init__()
        self.is_text = is_text

    def process_bind_param(self, value: Sequence[Any] | None, dialect: Dialect) -> str:
        """The text for the driver."""
        listed = value or ()
        if dialect.name == "sqlite":
            return dumps(list(listed))
        return lines(listed) if self.is_text else numbers(listed)


def one_of(column: Column[Any], name: str, dialect: str) -> ColumnElement[bool]:
    """The condition that `column` is in the list bound as the parameter `name`."""
    is_text = isinstance(column.type, String)
    listed = bindparam(name, type_=_List(is_text))
    if dialect == "sqlite":
        return column.in_(select(func.json_each(listed).table_valued("value").c.value))
    array = postgresql.ARRAY(column.type)
    listed_array = (
        func.string_to_array(listed, literal_column("E'\\n'"), type_=array) if is_text else cast(listed, array)
    )
    return column == any_(listed_array)


def among_ids(column: ColumnElement[int]) -> dict[str, ColumnElement[bool]]:
    """The condition, by dialect, that a column is one of the integers given as `ids`.

    PostgreSQL takes them as one array, so that a statement is parsed and planned once, whatever their number: a
    parameter for each of a hundred ids costs twice what reading the rows does. SQLite knows no arrays.
    """
    return {
        "sqlite": column.in_(bindparam("ids", expanding=True)),
        "postgresql": column == any_(bindparam("ids", type_=ARRAY(BigInteger))),
    }


def add_named(session: Session, row: Base, taken: NameTaken) -> None:
    """Write a new row; the transaction goes on where its name is taken.

    Raises:
        NameTaken: the `taken` that was given.
    """
    session.add(row)
    try:
        with session.begin_nested():
            session.flush()
    except IntegrityError:
        raise taken from None
