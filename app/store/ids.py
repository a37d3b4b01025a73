"""Rows by many ids at once."""

from __future__ import annotations

from sqlalchemy import BigInteger, ColumnElement, any_, bindparam
from sqlalchemy.dialects.postgresql import ARRAY


def among_ids(column: ColumnElement[int]) -> dict[str, ColumnElement[bool]]:
    """The condition, by dialect, that a column is one of the integers given as `ids`.

    PostgreSQL takes them as one array, so that a statement is parsed and planned once, whatever their number: a
    parameter for each of a hundred ids costs twice what reading the rows does. SQLite knows no arrays.
    """
    return {
        "sqlite": column.in_(bindparam("ids", expanding=True)),
        "postgresql": column == any_(bindparam("ids", type_=ARRAY(BigInteger))),
    }
