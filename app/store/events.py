"""Reading the event log: a study's by number, a project's by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, exists, select, tuple_
from sqlalchemy.orm import Session

from app.domain.study import StudyState
from app.store.log import settled_position
from app.store.tables import Event, EventCounter, Study

FINISHED = "study.finished"

Position = tuple[int, int, int]
"""Where an event stands in a project's log: position, study, number."""
START: Position = (-1, 0, 0)


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

    `is_complete`: there was nothing more. `has_ended`: and the last event was study.finished.
    """

    events: list[StoredEvent]
    last_seq: int
    is_complete: bool
    has_ended: bool


def read_log(session: Session, study_id: int, after: int, limit: int) -> LogPage | None:
    """Up to `limit` events of a study after number `after`; None where the study was deleted."""
    # The counter first: an event that is appended meanwhile must not look like one that was deleted.
    last_seq = session.scalar(select(EventCounter.last_seq).where(EventCounter.study_id == study_id))
    if last_seq is None:
        return None
    events = events_after(session, study_id, after, limit)
    if len(events) == limit:
        return LogPage(events, max(last_seq, events[-1].seq), is_complete=False, has_ended=False)
    if events:
        return LogPage(events, max(last_seq, events[-1].seq), is_complete=True, has_ended=events[-1].type == FINISHED)
    last_type = session.scalar(select(Event.type).where(Event.study_id == study_id, Event.seq == last_seq))
    if last_type is None:
        state = session.scalar(select(Study.state).where(Study.id == study_id))
        has_ended = state is not None and StudyState(state).is_over
    else:
        has_ended = last_type == FINISHED
    return LogPage([], last_seq, is_complete=True, has_ended=has_ended)


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
