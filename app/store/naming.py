"""Rows whose name is theirs alone: the database's constraint decides, whoever comes second is told."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import NameTaken
from app.store.tables import Base


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
