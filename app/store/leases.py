"""Leases: who may run a trial. With `app.store.recording` the only place with fenced SQL.

A trial may be *executed* more than once; its result is *recorded* once, by the attempt that holds the lease. The
states, and the functions that go from one to the next:

    (no row) ──reserve──▶ WAITING + lease ──start──▶ RUNNING + lease ──finish──▶ COMPLETE | PRUNED | FAIL
    WAITING  ──reserve──▶    │                          │
       ▲──────── release, charge, reap ◀────────────────┘        (charge, reap: FAIL at the last attempt)

Every write carries the token of its lease: a token that no longer stands drops out, the other members of the stack are
written. Expiry is judged by the database's clock alone. Locks are taken in the order study, trials by number, counter.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, bindparam, insert, select, tuple_, update
from sqlalchemy.orm import Session

from app.domain.json import dumps, loads
from app.domain.study import StudyState
from app.domain.trial import LIVE_STATES, FailureReason, Proposal, Reservation, TrialState
from app.store.engine import now
from app.store.log import NewEvent, append
from app.store.settling import fail_trials, lock_study, settle, study_event, write_log
from app.store.tables import Study, Trial, table_of

Lease = tuple[int, str]
"""A trial's id and the token that its holder was given."""


_t = table_of(Trial)
_FREE = (_t.c.state == TrialState.WAITING) & _t.c.lease_token.is_(None)

# Statements on every trial's way are built once: building one costs more than running it.
_QUEUED: Select[Any] = (
    select(_t.c.id, _t.c.number, _t.c.attempt, _t.c.ordinal, _t.c.requested, _t.c.hyperparameters, _t.c.sampled)
    .where(_t.c.study_id == bindparam("queued_study"), _FREE)
    .order_by(_t.c.queue, _t.c.number)
    .limit(bindparam("room"))
    .with_for_update()
)
_TAKE = (
    update(_t)
    .where(_t.c.id == bindparam("key"), _FREE)
    .values({name: bindparam(name) for name in ("lease_expires_at", "worker_id")} | {"lease_token": bindparam("token")})
)
_INSERT = insert(_t).returning(_t.c.id, sort_by_parameter_order=True)
_HELD_RESERVATIONS = (
    select(_t.c.id)
    .where(tuple_(_t.c.id, _t.c.lease_token).in_(bindparam("leases", expanding=True)), _t.c.state == TrialState.WAITING)
    .order_by(_t.c.number)
    .with_for_update()
)
_START = (
    update(_t)
    .where(_t.c.id == bindparam("key"), _t.c.lease_token == bindparam("token"))
    .values(
        state=TrialState.RUNNING,
        epochs=0,
        attempt=bindparam("next_attempt"),
        hyperparameters=bindparam("all_values"),
        sampled=bindparam("drawn"),
        system_attributes=bindparam("attributes"),
        **{name: bindparam(name) for name in ("worker_id", "device", "started_at", "lease_expires_at")},
    )
)


def holds(leases: Iterable[Lease], *states: TrialState) -> ColumnElement[bool]:
    """The fence: the trial is live and its token is still the one given."""
    return tuple_(Trial.id, Trial.lease_token).in_(list(leases)) & Trial.state.in_(states or LIVE_STATES)


def reserve(session: Session, study_id: int, worker_id: str, count: int, ttl_s: float) -> list[Reservation]:
    """Up to `count` trials of the study, leased to the worker for `ttl_s` seconds.

    First trials that were given back or lost, then enqueued ones, then new numbers: while the study is RUNNING, within
    its budget and its cap on parallel trials.
    """
    study, at = lock_study(session, study_id)
    if study.state != StudyState.RUNNING:
        return []
    ended = settle(session, study, at)
    if ended:
        append(session, study.id, study.public_id, ended, at=at)
    if study.state != StudyState.RUNNING or study.halt_reason is not None:
        return []
    room = count if study.max_parallel is None else min(count, study.max_parallel - study.leased)
    if room <= 0:
        return []
    queued = _queued(session, study, room) if study.waiting else []
    taken = [_reservation(row) for row in queued]
    lease = {"lease_expires_at": at + ttl_s, "worker_id": worker_id}
    if taken:
        session.connection().execute(_TAKE, [{"key": r.trial_id, "token": r.token, **lease} for r in taken])
    fresh = _new_trials(session, study, room - len(taken), at, lease)
    study.leased += len(taken) + len(fresh)
    return [*taken, *fresh]


def _queued(session: Session, study: Study, room: int) -> Sequence[Row[Any]]:
    """Rows that wait without a lease, in the order of claiming, locked."""
    return session.connection().execute(_QUEUED, {"queued_study": study.id, "room": room}).all()


def _reservation(row: Row[Any]) -> Reservation:
    def read(text: str | None) -> Any:
        return None if text is None else loads(text)

    return Reservation(
        trial_id=row.id,
        number=row.number,
        token=secrets.token_hex(16),
        attempt=row.attempt + 1,
        ordinal=row.ordinal,
        requested=read(row.requested),
        hyperparameters=read(row.hyperparameters),
        sampled=read(row.sampled),
    )


def _new_trials(session: Session, study: Study, room: int, at: float, lease: dict[str, Any]) -> list[Reservation]:
    """Insert up to `room` new leased rows, as far as the budget and the search space go."""
    if study.trial_limit is not None:
        room = min(room, study.trial_limit - study.next_number)
    if study.sample_limit is not None:
        room = min(room, study.sample_limit - study.sampled_count)
    if room <= 0:
        return []
    rows = [
        {
            "study_id": study.id,
            "number": study.next_number + i,
            "ordinal": study.sampled_count + i,
            "state": TrialState.WAITING,
            "lease_token": secrets.token_hex(16),
            "created_at": at,
            **lease,
        }
        for i in range(room)
    ]
    study.next_number += room
    study.sampled_count += room
    study.waiting += room
    ids = session.connection().execute(_INSERT, rows).scalars().all()
    return [
        Reservation(trial_id=key, number=row["number"], token=row["lease_token"], attempt=1, ordinal=row["ordinal"])
        for key, row in zip(ids, rows, strict=True)
    ]


def start(
    session: Session, study_id: int, proposals: Sequence[Proposal], worker_id: str, device: str, ttl_s: float
) -> set[int]:
    """Make sampled reservations RUNNING; the ids of those whose lease still stands."""
    study, at = lock_study(session, study_id)
    leases = [(p.reservation.trial_id, p.reservation.token) for p in proposals]
    connection = session.connection()
    held = set(connection.scalars(_HELD_RESERVATIONS, {"leases": leases}))
    if not held or study.state != StudyState.RUNNING or study.halt_reason is not None:
        return set()
    started = sorted((p for p in proposals if p.reservation.trial_id in held), key=lambda p: p.reservation.number)
    connection.execute(
        _START,
        [
            {
                "key": p.reservation.trial_id,
                "token": p.reservation.token,
                "next_attempt": p.reservation.attempt,
                "all_values": dumps(p.hyperparameters),
                "drawn": dumps(p.sampled),
                "attributes": dumps(p.system_attributes),
                "worker_id": worker_id,
                "device": device,
                "started_at": at,
                "lease_expires_at": at + ttl_s,
            }
            for p in started
        ],
    )
    study.waiting -= len(started)
    study.running += len(started)
    events: list[NewEvent] = []
    if study.started_at is None:
        study.started_at = at
        if study.seconds_limit is not None:
            study.deadline_at = at + study.seconds_limit
        events.append(study_event("study.started", study))
    for p in started:
        fields = {
            "hyperparameters": p.hyperparameters,
            "attempt": p.reservation.attempt,
            "worker_id": worker_id,
            "device": device,
        }
        events.append(NewEvent("trial.started", fields, trial=p.reservation.number))
    append(session, study.id, study.public_id, events, at=at)
    return held


def renew(session: Session, leases: Sequence[Lease], ttl_s: float) -> set[int]:
    """Renew leases for `ttl_s` seconds; the ids of those that still stand."""
    if not leases:
        return set()
    query = select(Trial.id).where(holds(leases)).order_by(Trial.study_id, Trial.number).with_for_update()
    held = set(session.scalars(query))
    if held:
        session.execute(
            update(Trial)
            .where(Trial.id.in_(held))
            .values(lease_expires_at=now() + ttl_s)
            .execution_options(synchronize_session=False)
        )
    return held


def release(session: Session, study_id: int, leases: Sequence[Lease], reason: str) -> set[int]:
    """Give trials back uncharged: another worker runs them again, with the same hyperparameters if they had any."""
    study, at = lock_study(session, study_id)
    rows = _leased_rows(session, holds(leases))
    append(session, study.id, study.public_id, _end_attempts(session, study, rows, at, reason=reason), at=at)
    return {row.id for row in rows}


def charge(
    session: Session, study_id: int, leases: Sequence[Lease], reason: FailureReason, code: str, message: str
) -> set[int]:
    """Give trials back whose attempt broke its trainer; the last attempt makes it FAIL with `reason`."""
    study, at = lock_study(session, study_id)
    rows = _leased_rows(session, holds(leases))
    events = _end_attempts(session, study, rows, at, reason=reason, charged=reason, code=code, message=message)
    append(session, study.id, study.public_id, events, at=at)
    return {row.id for row in rows}


def fail(
    session: Session, study_id: int, leases: Sequence[Lease], reason: FailureReason, code: str, message: str
) -> set[int]:
    """End leased trials as FAIL before they trained: the sampler could not draw them."""
    study, at = lock_study(session, study_id)
    rows = _leased_rows(session, holds(leases))
    events = fail_trials(session, study, rows, at, reason=reason, code=code, message=message)
    append(session, study.id, study.public_id, [*events, *settle(session, study, at)], at=at)
    return {row.id for row in rows}


def standing(session: Session, leases: Sequence[Lease]) -> set[int]:
    """The ids of the leases that still stand; nothing is written."""
    return set(session.scalars(select(Trial.id).where(holds(leases)))) if leases else set()


def expired_studies(session: Session) -> list[int]:
    """Ids of the studies with a lease that has expired, or whose deadline has passed."""
    lapsed = select(Trial.study_id).where(Trial.lease_token.is_not(None), Trial.lease_expires_at < now())
    overdue = select(Study.id).where(
        Study.managed, Study.state.in_(("RUNNING", "PAUSED")), Study.halt_reason.is_(None), Study.deadline_at <= now()
    )
    return sorted(set(session.scalars(lapsed)) | set(session.scalars(overdue)))


def reap(session: Session, study_id: int) -> int:
    """End the attempts of the study whose leases have expired; how many there were."""
    study, at = lock_study(session, study_id)
    lapsed = (Trial.study_id == study.id) & Trial.lease_token.is_not(None) & (Trial.lease_expires_at < now())
    rows = _leased_rows(session, lapsed)
    message = "The worker stopped renewing its lease."
    lost = FailureReason.LOST
    events = _end_attempts(session, study, rows, at, reason=lost, charged=lost, code="LEASE_EXPIRED", message=message)
    append(session, study.id, study.public_id, events, at=at)
    return len(rows)


def _leased_rows(session: Session, condition: ColumnElement[bool]) -> list[Row[Any]]:
    columns = (Trial.id, Trial.number, Trial.state, Trial.attempt, Trial.charged, Trial.started_at, Trial.lease_token)
    query = select(*columns).where(condition, Trial.state.in_(LIVE_STATES)).order_by(Trial.number).with_for_update()
    return list(session.execute(query))


def _end_attempts(
    session: Session,
    study: Study,
    rows: Sequence[Row[Any]],
    at: float,
    *,
    reason: str,
    charged: FailureReason | None = None,
    code: str = "",
    message: str = "",
) -> list[NewEvent]:
    """Take leases away: started trials wait for another attempt, or FAIL where they are charged and it was the last.

    A reservation that was never started is simply free again. In a study that is ending `settle` cancels what waits.
    """
    final: list[Row[Any]] = []
    again: list[Row[Any]] = []
    for row in rows:
        used_up = charged is not None and row.state == TrialState.RUNNING and row.charged + 1 >= study.max_attempts
        (final if used_up else again).append(row)
    events: list[NewEvent] = []
    for row in again:
        ran = row.state == TrialState.RUNNING
        session.execute(
            update(Trial)
            .where(Trial.id == row.id, Trial.lease_token == row.lease_token)
            .values(
                state=TrialState.WAITING,
                queue=0,
                charged=row.charged + (1 if ran and charged else 0),
                lease_token=None,
                lease_expires_at=None,
                started_at=None,
                worker_id=None,
            )
            .execution_options(synchronize_session=False)
        )
        study.leased -= 1
        if ran:
            study.running -= 1
            study.waiting += 1
            events.append(NewEvent("trial.retried", {"attempt": row.attempt + 1, "reason": reason}, trial=row.number))
            if message:
                write_log(session, row.id, row.attempt, f"{code}: {message}\n", at)
    if final:
        failure = charged or FailureReason.LOST
        events += fail_trials(session, study, final, at, reason=failure, code=code, message=message)
    return [*events, *settle(session, study, at)]
