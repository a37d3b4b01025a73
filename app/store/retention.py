"""Deleting what is old of studies that are over, a little at a time.

A study's events go from the first one on, up to its last `study.finished`: what is left of a log has no gap, and a
stream of the study still ends. Each step is one short transaction that locks the study, so that one that was reopened
meanwhile keeps what it has, and notes in `Pruning` what it did: readers are told that something is gone, and when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, bindparam, delete, func, or_, select, text
from sqlalchemy.orm import Session

from app.domain.study import StudyState
from app.errors import NotFound
from app.store.engine import now
from app.store.events import FINISHED
from app.store.locking import lock_study
from app.store.tables import Artifact, Checkpoint, Event, Metric, Pruning, Study, Trial, TrialLog, Worker, table_of

DAY_S = 86_400.0
OVER = tuple(state for state in StudyState if state.is_over)

_s, _t, _e, _p = table_of(Study), table_of(Trial), table_of(Event), table_of(Pruning)
_m, _l, _a, _c = table_of(Metric), table_of(TrialLog), table_of(Artifact), table_of(Checkpoint)


class What(StrEnum):
    """What a study may be relieved of."""

    EVENTS = "events"
    METRICS = "metrics"
    LOGS = "logs"
    FILES = "files"


@dataclass(frozen=True, slots=True)
class Step:
    """What one transaction deleted: how many rows, the paths of files that nothing points to any more.

    `after` is where the next one goes on, None where nothing is left.
    """

    count: int
    after: int | None
    paths: Sequence[str] = field(default=())


def due(session: Session, what: What, age_s: float, limit: int) -> list[int]:
    """Ids of up to `limit` studies that ended more than `age_s` seconds ago and still have something of `what`."""
    note = and_(_p.c.study_id == _s.c.id, _p.c.what == what)
    fresh = or_(_p.c.study_id.is_(None), _p.c.done.is_(False), _p.c.pruned_at < _s.c.finished_at)
    query = select(_s.c.id).outerjoin(_p, note).where(_is_old(age_s), fresh).order_by(_s.c.finished_at, _s.c.id)
    return list(session.execute(query.limit(limit)).scalars())


def _is_old(age_s: float) -> ColumnElement[bool]:
    return and_(_s.c.managed, _s.c.state.in_(OVER), _s.c.finished_at < now() - age_s)


def prune(session: Session, study_id: int, what: What, age_s: float, after: int, most: int) -> Step:
    """Delete up to about `most` rows of a study, from `after` on (0 at first), where it is still over and old."""
    try:
        study = lock_study(session, study_id)
    except NotFound:
        return Step(0, None)
    connection = study.connection
    old = connection.execute(select(_s.c.id).where(_s.c.id == study_id, _is_old(age_s))).scalar()
    if old is None:
        return Step(0, None)
    step, position = _PRUNE[what](connection, study_id, after, most)
    _note(connection, study_id, what, done=step.after is None, at=study.at, position=position)
    return step


def _prune_events(connection: Connection, study_id: int, _after: int, most: int) -> tuple[Step, int | None]:
    own = _e.c.study_id == study_id
    first, end = _prunable(connection, study_id)
    if first is None or first >= end:
        return Step(0, None), None
    stop = min(first + most, end)
    gone = and_(own, _e.c.seq >= first, _e.c.seq < stop)
    position = connection.execute(select(func.max(_e.c.position)).where(gone)).scalar()
    count = connection.execute(delete(_e).where(gone)).rowcount
    # A log that was restored has a jump in its numbers: what is left may begin far behind.
    return Step(count, None if stop == end else stop), position


def _prunable(connection: Connection, study_id: int) -> tuple[int | None, int]:
    """The numbers of a study's first event, and of the first that has to stay: the last study.finished."""
    own = _e.c.study_id == study_id
    first = connection.execute(select(func.min(_e.c.seq)).where(own)).scalar()
    finished = select(_e.c.seq).where(own, _e.c.type == FINISHED).order_by(_e.c.seq.desc()).limit(1)
    end = connection.execute(finished).scalar()
    if end is None:
        end = connection.execute(select(func.max(_e.c.seq)).where(own)).scalar() or 0
    return first, end


_METRIC_KEYS = (
    select(_t.c.number, _m.c.trial_id, _m.c.attempt, _m.c.epoch)
    .join(_m, _m.c.trial_id == _t.c.id)
    .where(_t.c.study_id == bindparam("study"), _t.c.number >= bindparam("after"))
    .order_by(_t.c.number, _m.c.attempt, _m.c.epoch)
)
_LOG_KEYS = (
    select(_t.c.number, _l.c.trial_id, _l.c.attempt)
    .join(_l, _l.c.trial_id == _t.c.id)
    .where(_t.c.study_id == bindparam("study"), _t.c.number >= bindparam("after"))
    .order_by(_t.c.number, _l.c.attempt)
)
_DELETE_METRIC = delete(_m).where(
    _m.c.trial_id == bindparam("trial"), _m.c.attempt == bindparam("of_attempt"), _m.c.epoch == bindparam("at_epoch")
)
_DELETE_LOG = delete(_l).where(_l.c.trial_id == bindparam("trial"), _l.c.attempt == bindparam("of_attempt"))


def _prune_metrics(connection: Connection, study_id: int, after: int, most: int) -> tuple[Step, int | None]:
    rows = connection.execute(_METRIC_KEYS.limit(most), {"study": study_id, "after": after}).all()
    if rows:
        keys = [{"trial": r.trial_id, "of_attempt": r.attempt, "at_epoch": r.epoch} for r in rows]
        connection.execute(_DELETE_METRIC, keys)
    return Step(len(rows), rows[-1].number if len(rows) == most else None), None


def _prune_logs(connection: Connection, study_id: int, after: int, most: int) -> tuple[Step, int | None]:
    rows = connection.execute(_LOG_KEYS.limit(most), {"study": study_id, "after": after}).all()
    if rows:
        connection.execute(_DELETE_LOG, [{"trial": r.trial_id, "of_attempt": r.attempt} for r in rows])
    return Step(len(rows), rows[-1].number if len(rows) == most else None), None


def _prune_files(connection: Connection, study_id: int, _after: int, most: int) -> tuple[Step, int | None]:
    """Pointers first: once the transaction is committed nothing names the files, whose deletion may fail."""
    published = select(_a.c.trial_id, _a.c.path).where(_a.c.study_id == study_id).order_by(_a.c.trial_id)
    left = select(_c.c.trial_id, _c.c.path).join(_t, _t.c.id == _c.c.trial_id).join(_s, _s.c.id == _t.c.study_id)
    left = left.where(_t.c.study_id == study_id, ~_POPULATION)
    paths: list[str] = []
    for table, query in ((_a, published), (_c, left.order_by(_c.c.trial_id))):
        ids = sorted({row.trial_id for row in connection.execute(query.limit(most))})
        if ids:
            gone = delete(table).where(table.c.trial_id.in_(ids)).returning(table.c.path)
            paths += connection.execute(gone).scalars()
    return Step(len(paths), 0 if len(paths) >= most else None, paths), None


_POPULATION = and_(_s.c.state == StudyState.COMPLETED, _s.c.generation_size.is_not(None))
"""A larger budget reopens it, and its next generation can't go on without the checkpoints of the last one."""
_PRUNE = {
    What.EVENTS: _prune_events,
    What.METRICS: _prune_metrics,
    What.LOGS: _prune_logs,
    What.FILES: _prune_files,
}
_NOTE = text(
    "INSERT INTO fettle_prunings (study_id, what, pruned_at, done, position) "
    "VALUES (:study_id, :what, :at, :done, :position) ON CONFLICT (study_id, what) DO UPDATE SET "
    "pruned_at = excluded.pruned_at, done = excluded.done, "
    "position = coalesce(excluded.position, fettle_prunings.position)"
)


def _note(connection: Connection, study_id: int, what: What, *, done: bool, at: float, position: int | None) -> None:
    values = {"study_id": study_id, "what": what.value, "at": at, "done": done, "position": position}
    connection.execute(_NOTE, values)


_TABLES: dict[What, list[Table]] = {What.METRICS: [_m], What.LOGS: [_l], What.FILES: [_a, _c]}


def extent(session: Session, study_id: int, what: What) -> int:
    """How many rows of a study pruning would delete: events, epochs, logs, or files."""
    connection = session.connection()
    if what is What.EVENTS:
        first, end = _prunable(connection, study_id)
        gone = and_(_e.c.study_id == study_id, _e.c.seq >= (first or 0), _e.c.seq < end)
        return connection.execute(select(func.count()).select_from(_e).where(gone)).scalar() or 0
    found = 0
    for table in _TABLES[what]:
        rows = table.join(_t, _t.c.id == table.c.trial_id).join(_s, _s.c.id == _t.c.study_id)
        query = select(func.count()).select_from(rows).where(_t.c.study_id == study_id)
        query = query.where(~_POPULATION) if table is _c else query
        found += connection.execute(query).scalar() or 0
    return found


def pruned_at(session: Session, trial: Trial, what: What) -> float | None:
    """When something of a trial was deleted by the retention, or None where it was not."""
    query = select(_p.c.pruned_at).where(_p.c.study_id == trial.study_id, _p.c.what == what)
    at: Any = session.connection().execute(query).scalar()
    return at if at is not None and trial.finished_at is not None and trial.finished_at <= at else None


def forget_workers(session: Session, age_s: float) -> int:
    """Delete the rows of workers that were not heard of for `age_s` seconds; how many there were."""
    old = delete(Worker).where(Worker.heartbeat_at < now() - age_s).returning(Worker.id)
    return len(session.scalars(old).all())
