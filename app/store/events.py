"""Reading the event log: a study's by number, a project's by position.

Events may be missing where a reader goes on: the retention deleted them, or the database was restored to a state from
before them. Readers are told so (`reset`), never left with a gap that they can't see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, exists, func, select, tuple_
from sqlalchemy.orm import Session

from app.domain.study import StudyState
from app.store.log import settled_position
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
    """A part of a project's log. `gone` are the public ids of studies that lost events of after the reader's place."""

    events: list[ProjectEvent]
    gone: list[str]


def read_log(session: Session, study_id: int, after: int, limit: int) -> LogPage | None:
    """Up to `limit` events of a study after number `after`; None where the study was deleted.

    After a number that the log has not reached it begins anew: who has seen it saw it before the database was restored.
    """
    # The counter first: an event that is appended meanwhile must not look like one that was deleted.
    last_seq = session.scalar(select(EventCounter.last_seq).where(EventCounter.study_id == study_id))
    if last_seq is None:
        return None
    is_lost = after > last_seq
    start = 0 if is_lost else after
    events = events_after(session, study_id, start, limit)
    reset = _reset(start, events, last_seq, is_lost=is_lost)
    if len(events) == limit:
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


def events_after(session: Session, study_id: int, after: int, limit: int) -> list[StoredEvent]:
    """Up to `limit` events of a study after number `after`."""
    query = (
        select(Event.seq, Event.type, Event.data)
        .where(Event.study_id == study_id, Event.seq > after)
        .order_by(Event.seq)
        .limit(limit)
    )
    return [StoredEvent(*row) for row in session.execute(query)]


def last_numbers(session: Session, study_ids: Sequence[int]) -> dict[int, int]:
    """The number of each study's last event; deleted studies are left out."""
    found: dict[int, int] = {}
    for i in range(0, len(study_ids), 500):
        some = study_ids[i : i + 500]
        query = select(EventCounter.study_id, EventCounter.last_seq).where(EventCounter.study_id.in_(some))
        found.update((row.study_id, row.last_seq) for row in session.execute(query))
    return found


def project_page(session: Session, project: str, after: Position, limit: int) -> ProjectPage:
    """Up to `limit` events of a project's studies after `after`, and which studies have lost some of those."""
    events = project_events_after(session, project, after, limit)
    # Afterwards: whatever was deleted before the events were read has been noted by now.
    query = (
        select(Study.public_id)
        .join(Pruning, Pruning.study_id == Study.id)
        .where(Pruning.position >= after[0], Study.project == project)
        .order_by(Pruning.position.desc(), Study.id)
        .limit(MOST_GONE)
    )
    return ProjectPage(events, list(session.scalars(query)))


def restores(session: Session) -> int:
    """How often the database was restored: places in a project's log are those of one life of it."""
    return session.scalar(select(func.max(Restore.number))) or 0


def project_events_after(session: Session, project: str, after: Position, limit: int) -> list[ProjectEvent]:
    """Up to `limit` events of a project's studies after `after`: none is ever told later at an earlier position."""
    key = tuple_(Event.position, Event.study_id, Event.seq)
    query = (
        select(Event.position, Event.study_id, Event.seq, Event.type, Event.data)
        .where(_is_of(project), key > tuple_(*after), settled_position(session))
        .order_by(Event.position, Event.study_id, Event.seq)
        .limit(limit)
    )
    return [ProjectEvent((row.position, row.study_id, row.seq), row.type, row.data) for row in session.execute(query)]


def _is_of(project: str) -> ColumnElement[bool]:
    """The condition that an event's study is of a project.

    Asked event by event, in the order of the log: of a join SQLite reads the studies first, and sorts all their events.
    """
    return exists().where(Study.id == Event.study_id, Study.project == project)


def latest_position(session: Session, project: str) -> Position:
    """Where a project's log ends now."""
    query = (
        select(Event.position, Event.study_id, Event.seq)
        .where(_is_of(project), settled_position(session))
        .order_by(Event.position.desc(), Event.study_id.desc(), Event.seq.desc())
        .limit(1)
    )
    row = session.execute(query).one_or_none()
    return START if row is None else (row.position, row.study_id, row.seq)
