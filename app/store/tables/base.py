"""What all tables share: names of constraints and the types of columns."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Double,
    Integer,
    MetaData,
    String,
    Table,
)
from sqlalchemy.orm import DeclarativeBase

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
BigId = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """All tables of the service."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: dict[Any, Any] = {float: Double, str: String, int: BigId}


def table_of(entity: type[Base]) -> Table:
    """The table of a mapped class, for statements without the ORM's overhead on hot paths."""
    table = entity.__table__
    if not isinstance(table, Table):
        raise TypeError(f"Expected a mapped class with a table of its own. Received: {entity}")
    return table
