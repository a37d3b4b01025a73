"""The event log: gapless numbers per study in commit order, told in the transaction of the change they tell.

`append` takes the study's counter row, which every transaction locks last: a number is never given before another
transaction's lower one is committed. `position` orders the events of all studies; see `settled_position`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Text, bindparam, cast, func, select, true, update
from sqlalchemy.orm import Session

from app.domain.json import dumps
from app.store.engine import now
from app.store.query import Along, Rows, lines
from app.store.tables import Event, EventCounter, Study, table_of


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append: its type, the trial it is about, and the fields of its type, or their JSON object."""

    type: str
    fields: dict[str, Any] | str
    trial: int | None = None


def append(session: Session, study_id: int, public_id: str, events: Sequence[NewEvent], *, at: float) -> None:
    """Append `events`, all told at the Unix time `at`. The study's counter stays locked until the transaction ends."""
    append_to(session.connection(), study_id, public_id, events, at=at)


def append_to(
    connection: Connection,
    study_id: int,
    public_id: str,
    events: Sequence[NewEvent],
    *,
    at: float,
    along: Sequence[Along] = (),
) -> None:
    """Append `events` in the transaction of `connection`, as `append` does, and write what goes `along` with them."""
    if not events and not along:
        return
    told = f'"at":"{rfc3339(at)}","study_id":"{public_id}"'
    types = [event.type for event in events]
    bodies = [_body(event, told) for event in events]
    if connection.dialect.name == "postgresql":
        values = {"study": study_id, "count": len(events), "types": lines(types), "bodies": lines(bodies)}
        for write in along:
            values |= write.values
        connection.exec_driver_sql(_appending(*(write.part for write in along)), values)
        return
    last, position, project = connection.execute(_COUNT, {"counted_study": study_id, "count": len(events)}).one()
    numbered = zip(range(last - len(events) + 1, last + 1), types, bodies, strict=True)
    rows = [(study_id, seq, position, kind, f'{{"seq":{seq}{body}', project) for seq, kind, body in numbered]
    _EVENTS.add(connection, rows)


def _body(event: NewEvent, told: str) -> str:
    """The event's JSON text after its number."""
    about = "" if event.trial is None else f',"trial":{event.trial}'
    fields = event.fields if isinstance(event.fields, str) else dumps(event.fields)
    return f',"type":"{event.type}",{told}{about}{"" if fields == "{}" else ","}{fields[1:]}'


def rfc3339(at: float) -> str:
    """The Unix time `at` as RFC 3339 in UTC, to the microsecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def clock(session: Session) -> float:
    """The database's time in Unix seconds."""
    return float(session.scalar(select(now())) or 0.0)


_counters = table_of(EventCounter)
_COUNT = (
    update(_counters)
    .where(_counters.c.study_id == bindparam("counted_study"))
    .values(last_seq=_counters.c.last_seq + bindparam("count"))
    .returning(
        _counters.c.last_seq,
        func.max(
            cast(now() * 1000, BigInteger), select(func.coalesce(func.max(Event.position), 0) + 1).scalar_subquery()
        ),
        select(Study.project).where(Study.id == bindparam("counted_study")).scalar_subquery(),
    )
)
"""SQLite: count events; the last one's number, their position (above all before, since writers come one by one), and
their project."""
_EVENTS = Rows(table_of(Event), "study_id", "seq", "position", "type", "data", "project")


@cache
def _appending(*parts: str) -> str:
    """PostgreSQL: count events and write them, numbered.

    Their position is the number of this transaction, or of a later one that was the first to tell events of the study:
    transactions are numbered when they first write, and tell in the order in which they get the counter.
    """
    counted = """counted AS (
    UPDATE fettle_event_counters SET
        last_seq = last_seq + %(count)s,
        last_position = greatest(last_position, pg_current_xact_id()::text::bigint)
    WHERE study_id = %(study)s
    RETURNING study_id, last_seq - %(count)s AS before, last_position AS position
)"""
    return f"""WITH {", ".join([*parts, counted])}
INSERT INTO fettle_events (study_id, seq, position, type, data, project)
SELECT study_id, before + i, position, type, '{{"seq":' || (before + i) || body, project
FROM counted, (SELECT project FROM fettle_studies WHERE id = %(study)s) AS of_project, unnest(
    string_to_array(%(types)s, E'\\n'), string_to_array(%(bodies)s, E'\\n')
) WITH ORDINALITY AS told (type, body, i)"""  # noqa: S608 - all of it is constant


_OLDEST_RUNNING = cast(cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), Text), BigInteger)


def settled_position(session: Session) -> ColumnElement[bool]:
    """The condition that an event's transaction and all before it have ended: only then may the firehose pass it."""
    return Event.position < _OLDEST_RUNNING if session.get_bind().dialect.name == "postgresql" else true()


def settled_now(session: Session) -> ColumnElement[bool]:
    """The same as it is at this moment, for several statements that must not tell of different ones.

    On SQLite all statements of a session see one moment.
    """
    if session.get_bind().dialect.name == "postgresql":
        return Event.position < session.execute(select(_OLDEST_RUNNING)).scalar_one()
    return true()
