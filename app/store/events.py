"""Reading the event log: a study's by number, a project's by position.

Events may be missing where a reader goes on: the retention deleted them, or the database was restored to a state from
before them. Readers are told so (`reset`), never left with a gap that they can't see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, func, select, tuple_
from sqlalchemy.orm import Session

from app.domain.study import StudyState
from app.store.log import settled_now
from app.store.portions import PAGE_BYTES, first_that_fit, octets, portion
from app.store.tables import Event, EventCounter, Pruning, Restore, Study

FINISHED = "study.finished"

Position = tuple[int, int, int]
"""Where an event stands in a project's log: position, study, number."""
START: Position = (-1, 0, 0)
MOST_GONE = 100
"""Studies that a reader of a project's log is told of at once, where they lost events."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event of a study's log: `data` is its JSON text."""

    seq: int
    type: str
    data: str


@dataclass(frozen=True, slots=True)
class ProjectEvent:
    """An event of a project's log."""

    position: Position
    type: str
    data: str


@dataclass(frozen=True, slots=True)
class LogPage:
    """A part of a study's log. `last_seq` is the number of its last event, 0 without any.

    `is_complete`: there was nothing more. `has_ended`: and the last event was study.finished. `reset` is the number
    of the first event that there is, where those before it are not what follows the reader's last one.
    """

    events: list[StoredEvent]
    last_seq: int
    is_complete: bool
    has_ended: bool
    reset: int | None = None


@dataclass(frozen=True, slots=True)
class ProjectPage:
    """A part of a project's log. `gone` are the public ids of studies that lost events of after the reader's place.

    `is_complete`: there was nothing more.
    """

    events: list[ProjectEvent]
    gone: list[str]
    is_complete: bool


def read_log(session: Session, study_id: int, after: int, limit: int, budget: int = PAGE_BYTES) -> LogPage | None:
    """Up to `limit` events of a study after number `after`, at least one and as many as fit `budget` bytes.

    None where the study was deleted.

    After a number that the log has not reached it begins anew: who has seen it saw it before the database was restored.
    """
    # The counter first: an event that is appended meanwhile must not look like one that was deleted.
    last_seq = session.scalar(select(EventCounter.last_seq).where(EventCounter.study_id == study_id))
    if last_seq is None:
        return None
    is_lost = after > last_seq
    start = 0 if is_lost else after
    events, is_full = _study_events(session, study_id, start, limit, budget)
    reset = _reset(start, events, last_seq, is_lost=is_lost)
    if is_full:
        return LogPage(events, max(last_seq, events[-1].seq), is_complete=False, has_ended=False, reset=reset)
    if events:
        ended = events[-1].type == FINISHED
        return LogPage(events, max(last_seq, events[-1].seq), is_complete=True, has_ended=ended, reset=reset)
    last_type = session.scalar(select(Event.type).where(Event.study_id == study_id, Event.seq == last_seq))
    if last_type is None:
        state = session.scalar(select(Study.state).where(Study.id == study_id))
        has_ended = state is not None and StudyState(state).is_over
    else:
        has_ended = last_type == FINISHED
    return LogPage([], last_seq, is_complete=True, has_ended=has_ended, reset=reset)


def _reset(start: int, events: Sequence[StoredEvent], last_seq: int, *, is_lost: bool) -> int | None:
    first = events[0].seq if events else last_seq + 1
    return first if is_lost or first > start + 1 else None


def events_after(
    session: Session, study_id: int, after: int, limit: int, budget: int = PAGE_BYTES
) -> list[StoredEvent]:
    """Up to `limit` events of a study after number `after`, at least one and as many as fit `budget` bytes."""
    return _study_events(session, study_id, after, limit, budget)[0]


def _study_events(
    session: Session, study_id: int, after: int, limit: int, budget: int
) -> tuple[list[StoredEvent], bool]:
    """The events, and whether there may be more."""
    query = (
        select(Event.seq, Event.type, Event.data)
        .where(Event.study_id == study_id, Event.seq > after)
        .order_by(Event.seq)
        .limit(limit)
    )
    found = portion(session, query, "data", ["seq"], budget)
    events = [StoredEvent(row.seq, row.type, row.data) for row in found.rows]
    return events, found.is_cut or len(events) == limit


def last_numbers(session: Session, study_ids: Sequence[int]) -> dict[int, int]:
    """The number of each study's last event; deleted studies are left out."""
    found: dict[int, int] = {}
    for i in range(0, len(study_ids), 500):
        some = study_ids[i : i + 500]
        query = select(EventCounter.study_id, EventCounter.last_seq).where(EventCounter.study_id.in_(some))
        found.update((row.study_id, row.last_seq) for row in session.execute(query))
    return found


def project_page(session: Session, project: str, after: Position, limit: int, budget: int = PAGE_BYTES) -> ProjectPage:
    """Up to `limit` events of a project's studies after `after`, at least one and as many as fit `budget` bytes.

    And which studies have lost some of those.
    """
    events, is_full = _project_events(session, project, after, limit, budget)
    # Afterwards: whatever was deleted before the events were read has been noted by now.
    query = (
        select(Study.public_id)
        .join(Pruning, Pruning.study_id == Study.id)
        .where(Pruning.position >= after[0], Study.project == project)
        .order_by(Pruning.position.desc(), Study.id)
        .limit(MOST_GONE)
    )
    return ProjectPage(events, list(session.scalars(query)), is_complete=not is_full)


def restores(session: Session) -> int:
    """How often the database was restored: places in a project's log are those of one life of it."""
    return session.scalar(select(func.max(Restore.number))) or 0


def project_events_after(
    session: Session, project: str, after: Position, limit: int, budget: int = PAGE_BYTES
) -> list[ProjectEvent]:
    """Up to `limit` events of a project's studies after `after`, at least one and as many as fit `budget` bytes.

    None is ever told later at an earlier position.
    """
    return _project_events(session, project, after, limit, budget)[0]


_PLACE = (Event.position, Event.study_id, Event.seq)


def _project_events(
    session: Session, project: str, after: Position, limit: int, budget: int
) -> tuple[list[ProjectEvent], bool]:
    """The events, and whether there may be more."""
    settled = settled_now(session)
    unclaimed, first_end = _range(session, _is_unclaimed(project) & settled, after, limit, budget)
    own, second_end = _range(session, (Event.project == project) & settled, after, limit, budget)
    if not unclaimed:
        return own, second_end is not None
    ends = [end for end in (first_end, second_end) if end is not None]
    events = sorted([*unclaimed, *own], key=lambda event: event.position)
    events = [event for event in events if not ends or event.position <= min(ends)]
    kept = events[: min(limit, first_that_fit([octets(event.data) for event in events], budget))]
    return kept, bool(ends) or len(kept) < len(events)


def _range(
    session: Session, condition: ColumnElement[bool], after: Position, limit: int, budget: int
) -> tuple[list[ProjectEvent], Position | None]:
    """The first events beyond `after` that meet a condition, and the last one's place where there may be more."""
    query: Select[*tuple[Any, ...]] = (
        select(*_PLACE, Event.type, Event.data)
        .where(condition, tuple_(*_PLACE) > tuple_(*after))
        .order_by(*_PLACE)
        .limit(limit)
    )
    found = portion(session, query, "data", ["position", "study_id", "seq"], budget)
    events = [ProjectEvent((row.position, row.study_id, row.seq), row.type, row.data) for row in found.rows]
    return events, events[-1].position if found.is_cut or len(events) == limit else None


def _is_unclaimed(project: str) -> ColumnElement[bool]:
    """The condition that an event names no project, as an older release tells it, and its study is of this one."""
    return Event.project.is_(None) & exists().where(Study.id == Event.study_id, Study.project == project)


def latest_position(session: Session, project: str) -> Position:
    """Where a project's log ends now."""
    latest, settled = START, settled_now(session)
    for condition in (_is_unclaimed(project), Event.project == project):
        query = select(*_PLACE).where(condition, settled).order_by(*(column.desc() for column in _PLACE)).limit(1)
        row = session.execute(query).one_or_none()
        latest = latest if row is None else max(latest, (row.position, row.study_id, row.seq))
    return latest
