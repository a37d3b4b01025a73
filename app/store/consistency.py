"""Whether a study's counters say what its rows say, and its log has no gap. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.store.listing import at_one_moment
from app.store.retention import OVER
from app.store.tables import Event, EventCounter, Study, Trial

RESTORED = "study.restored"
COUNTED = ("waiting", "running", "complete", "pruned", "fail")


def studies(session: Session, limit: int) -> list[tuple[int, str]]:
    """Ids, and public ids, of up to `limit` of the service's studies: open ones first, then the newest."""
    is_over: ColumnElement[bool] = Study.state.in_(OVER)
    query = select(Study.id, Study.public_id).where(Study.managed).order_by(is_over, Study.id.desc()).limit(limit)
    return [(row.id, row.public_id) for row in session.execute(query)]


def inconsistencies(session: Session, study_id: int) -> list[str]:
    """What is wrong with a study, in words; nothing where it was deleted. The session must be a fresh one."""
    at_one_moment(session)
    study = session.get(Study, study_id)
    if study is None:
        return []
    return [*_counters(session, study), *_best(session, study), *_log(session, study_id)]


def _counters(session: Session, study: Study) -> Iterator[str]:
    of_study = Trial.study_id == study.id
    states = dict(session.execute(select(Trial.state, func.count()).where(of_study).group_by(Trial.state)).all())
    for name in COUNTED:
        if getattr(study, name) != states.get(name.upper(), 0):
            yield f"{name} is {getattr(study, name)}, but {states.get(name.upper(), 0)} trials are"
    sums = (func.count(Trial.lease_token), func.count(), func.max(Trial.number), func.count(Trial.finish_seq))
    row: Any = session.execute(select(*sums).where(of_study)).one()
    leased, count, last, finished = row
    if study.leased != leased:
        yield f"leased is {study.leased}, but {leased} trials have a lease"
    if not study.next_number == count == (-1 if last is None else last) + 1:
        yield f"the next trial is number {study.next_number}, but there are {count}, up to {last}"
    if study.finished_count != finished:
        yield f"finished_count is {study.finished_count}, but {finished} trials have a place in that order"


def _best(session: Session, study: Study) -> Iterator[str]:
    if study.best_number is None:
        return
    query = select(Trial.value).where(Trial.study_id == study.id, Trial.number == study.best_number)
    value = session.scalar(query)
    if value != study.best_value:
        yield f"the best value is {study.best_value}, but trial {study.best_number} has {value}"


def _log(session: Session, study_id: int) -> Iterator[str]:
    of_study = Event.study_id == study_id
    last_seq = session.scalar(select(EventCounter.last_seq).where(EventCounter.study_id == study_id))
    if last_seq is None:
        yield "it has no counter of events"
        return
    sums = select(func.count(), func.min(Event.seq), func.max(Event.seq)).where(of_study)
    row: Any = session.execute(sums).one()
    count, first, last = row
    if last is not None and last != last_seq:
        yield f"the last event is number {last_seq} by its counter, but {last} in the log"
    if count and last - first + 1 != count:
        yield from _gaps(session, of_study)


def _gaps(session: Session, of_study: ColumnElement[bool]) -> Sequence[str]:
    """Jumps in the numbers of a log that no restore explains; the first few of them."""
    before = func.lag(Event.seq).over(order_by=Event.seq).label("before")
    log = select(Event.seq, Event.type, before).where(of_study).subquery()
    jumps = select(log.c.seq, log.c.before).where(log.c.seq > log.c.before + 1, log.c.type != RESTORED).limit(3)
    return [f"events {row.before + 1} to {row.seq - 1} are missing" for row in session.execute(jumps)]
