"""The fence: what a worker writes of a trial goes through only where its lease's token still stands on the trial's row.

A token is drawn with each lease and never again. Whoever lost a lease, and goes on as if nothing had happened, finds
another token there, or none: its write changes no row, or it sees the locked row and lets go. Both forms are here, and
no other module compares tokens of trials.
"""

from __future__ import annotations

from typing import Any, TypeGuard

from sqlalchemy import ColumnElement, Row, bindparam

from app.domain.trial import TrialState
from app.store.tables import Trial, table_of

_t = table_of(Trial)
FENCED = (_t.c.id == bindparam("key"), _t.c.lease_token == bindparam("token"))
"""The WHERE of an UPDATE of the trial `key` by whoever holds the lease `token`. Both are parameters of each row."""


def held_by(token: str) -> ColumnElement[bool]:
    """The condition that a trial is leased under this token."""
    return _t.c.lease_token == token


def was_held_by(token: str) -> ColumnElement[bool]:
    """The condition that a trial is leased under this token, or ended under it and nobody has it since."""
    return held_by(token) | (_t.c.lease_token.is_(None) & (_t.c.finish_token == token))


def stands(row: Row[Any] | None, token: str, *states: TrialState) -> TypeGuard[Row[Any]]:
    """Whether a locked row, None where the trial is gone, is leased under this token, in one of these states if given.

    Read under the lock it stays so until the transaction ends: what is written then needs no WHERE of its own.
    """
    return row is not None and row.lease_token == token and (not states or row.state in states)
