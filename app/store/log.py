"""The event log: gapless numbers per study in commit order, told in the transaction of the change they tell.

`append` takes the study's counter row, which every transaction locks last: a number is never given before another
transaction's lower one is committed. `position` orders the events of all studies; see `settled_position`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Text, bindparam, cast, func, insert, select, true, update
from sqlalchemy.orm import Session

from app.domain.json import dumps
from app.store.engine import now
from app.store.tables import Event, EventCounter, table_of


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append: its type, the trial it is about, and the fields of its type."""

    type: str
    fields: dict[str, Any]
    trial: int | None = None


def append(session: Session, study_id: int, public_id: str, events: Sequence[NewEvent], *, at: float) -> None:
    """Append `events`, all told at the Unix time `at`. The study's counter stays locked until the transaction ends."""
    if not events:
        return
    session.flush()  # what was changed in memory is written before the counter is locked
    connection = session.connection()
    counted = connection.execute(
        _COUNT[connection.dialect.name], {"counted_study": study_id, "count": len(events)}
    ).one()
    last, position = counted
    first = last - len(events) + 1
    told_at = rfc3339(at)
    rows = []
    for seq, event in enumerate(events, start=first):
        about = {"trial": event.trial} if event.trial is not None else {}
        data = dumps({"seq": seq, "type": event.type, "at": told_at, "study_id": public_id, **about, **event.fields})
        rows.append({"study_id": study_id, "seq": seq, "position": position, "type": event.type, "data": data})
    connection.execute(_ADD, rows)


def rfc3339(at: float) -> str:
    """The Unix time `at` as RFC 3339 in UTC, to the microsecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def clock(session: Session) -> float:
    """The database's time in Unix seconds."""
    return float(session.scalar(select(now())) or 0.0)


def _next_position(dialect: str) -> ColumnElement[int]:
    """PostgreSQL: this transaction's number. SQLite, whose writers come one by one: above all before it."""
    if dialect == "postgresql":
        return cast(cast(func.pg_current_xact_id(), Text), BigInteger)
    milliseconds = cast(now() * 1000, BigInteger)
    return func.max(milliseconds, select(func.coalesce(func.max(Event.position), 0) + 1).scalar_subquery())


_counters = table_of(EventCounter)
_ADD = insert(table_of(Event))
_COUNT = {
    dialect: update(_counters)
    .where(_counters.c.study_id == bindparam("counted_study"))
    .values(last_seq=_counters.c.last_seq + bindparam("count"))
    .returning(_counters.c.last_seq, _next_position(dialect))
    for dialect in ("sqlite", "postgresql")
}
"""Count events; the last one's number and their position. Built once: building costs more than running."""


def settled_position(session: Session) -> ColumnElement[bool]:
    """The condition that an event's transaction and all before it have ended: only then may the firehose pass it."""
    if session.get_bind().dialect.name == "postgresql":
        return Event.position < cast(cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), Text), BigInteger)
    return true()
