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

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import CursorResult, Row, bindparam, func, select, update
from sqlalchemy.orm import Session

from app.domain.json import dumps
from app.domain.study import StudyState
from app.domain.trial import LIVE_STATES, FailureReason, Proposal, Reservation, TrialState
from app.store.duplicates import finish_reused, sort_duplicates
from app.store.engine import now
from app.store.fence import FENCED, stands
from app.store.locking import LockedStudy, lock_study, lock_trials, tell
from app.store.log import NewEvent
from app.store.query import DIALECTS, one_of, unindexed
from app.store.reserving import reserve_locked
from app.store.settling import fail_trials, settle, study_event, write_logs
from app.store.tables import Study, Trial, table_of

Lease = tuple[int, str]
"""A trial's id and the token that its holder was given."""


_t = table_of(Trial)

# Statements on a trial's way are built once: building one costs more than running it.
_START = (
    update(_t)
    .where(*FENCED)
    .values(
        state=TrialState.RUNNING,
        epochs=0,
        attempt=bindparam("next_attempt"),
        hyperparameters=bindparam("all_values"),
        varied=bindparam("varied_values"),
        sampled=bindparam("drawn"),
        system_attributes=bindparam("attributes"),
        identity=bindparam("hash"),
        **{name: bindparam(name) for name in ("worker_id", "device", "started_at", "lease_expires_at")},
        **{name: bindparam(name) for name in ("parent", "first_epoch")},
    )
)
_LEASED_COLUMNS = [
    _t.c[n] for n in ("id", "number", "state", "attempt", "charged", "epochs", "started_at", "lease_token")
]
_HELD = {
    dialect: select(*_LEASED_COLUMNS, now().label("at"))
    .where(one_of(_t.c.id, "ids", dialect), one_of(_t.c.lease_token, "tokens", dialect), _t.c.state.in_(LIVE_STATES))
    .order_by(_t.c.study_id, _t.c.number)
    for dialect in DIALECTS
}
_HOLD = {dialect: query.with_for_update() for dialect, query in _HELD.items()}
_RENEW = {
    dialect: update(_t).where(one_of(_t.c.id, "ids", dialect)).values(lease_expires_at=now() + bindparam("ttl_s"))
    for dialect in DIALECTS
}
_PROMISE = {
    dialect: update(_t)
    .where(one_of(_t.c.id, "ids", dialect))
    .values(lease_seconds=bindparam("ttl_s"), lease_expires_at=now() + bindparam("ttl_s"))
    for dialect in DIALECTS
}
_LAPSED = (
    select(*_LEASED_COLUMNS)
    .where(
        unindexed(_t.c.study_id) == bindparam("lapsed_study"),
        _t.c.lease_token.is_not(None),
        _t.c.lease_expires_at < now(),
        _t.c.state.in_(LIVE_STATES),
    )
    .order_by(unindexed(_t.c.number))
    .with_for_update()
)
_FREE = (
    update(_t)
    .where(*FENCED)
    .values(
        state=TrialState.WAITING,
        queue=0,
        charged=bindparam("charged_now"),
        lease_token=None,
        lease_expires_at=None,
        started_at=None,
        worker_id=None,
    )
)


def reserve(session: Session, study_id: int, worker_id: str, count: int, ttl_s: float) -> list[Reservation]:
    """Up to `count` trials of the study, leased to the worker for `ttl_s` seconds.

    First trials that were given back or lost, then enqueued ones, then new numbers: while the study is RUNNING, within
    its budget and its cap on parallel trials.
    """
    study = lock_study(session, study_id)
    events = settle(study) if study.state == StudyState.RUNNING else []
    reservations = reserve_locked(study, worker_id, count, ttl_s)
    tell(study, events)
    return reservations


def start(
    session: Session, study_id: int, proposals: Sequence[Proposal], worker_id: str, device: str, ttl_s: float
) -> set[int]:
    """Make sampled reservations RUNNING; the ids of those that run, whose lease still stands.

    Repeating a start, after a commit whose answer was lost, changes nothing and finds its trials started.
    """
    study = lock_study(session, study_id)
    rows = lock_trials(study, [p.reservation.trial_id for p in proposals])
    started, events = start_locked(study, rows, proposals, worker_id, device, ttl_s)
    tell(study, events)
    return started


def start_locked(
    study: LockedStudy,
    rows: Mapping[int, Row[Any]],
    proposals: Sequence[Proposal],
    worker_id: str,
    device: str,
    ttl_s: float,
) -> tuple[set[int], list[NewEvent]]:
    """Start trials of a locked study, whose `rows` are locked; the ids of those started, and the events.

    Those that take another trial's result are over, and those that are to be drawn anew keep their reservation: neither
    is among the started ones.
    """
    held = [p for p in proposals if stands(rows.get(p.reservation.trial_id), p.reservation.token, *LIVE_STATES)]
    again = {p.reservation.trial_id for p in held if rows[p.reservation.trial_id].state == TrialState.RUNNING}
    starting = sorted(
        (p for p in held if p.reservation.trial_id not in again), key=lambda proposal: proposal.reservation.number
    )
    if not starting or study.state != StudyState.RUNNING or study.halt_reason is not None:
        return again, []
    by_fate = sort_duplicates(study, starting)
    events = _start_trained(study, by_fate.trained, worker_id, device, ttl_s)
    if by_fate.reused:
        events += [*finish_reused(study, by_fate.reused, worker_id, device), *settle(study)]
    return again | {p.reservation.trial_id for p in by_fate.trained}, events


def _start_trained(
    study: LockedStudy, starting: Sequence[Proposal], worker_id: str, device: str, ttl_s: float
) -> list[NewEvent]:
    """Make reservations RUNNING."""
    if not starting:
        return []
    study.connection.execute(
        _START,
        [
            {
                "key": p.reservation.trial_id,
                "token": p.reservation.token,
                "next_attempt": p.reservation.attempt,
                "all_values": p.text if p.varied is None else None,
                "varied_values": None if p.varied is None else p.text,
                "drawn": dumps(p.sampled),
                "attributes": dumps(p.system_attributes),
                "hash": p.identity,
                "worker_id": worker_id,
                "device": device,
                "started_at": study.at,
                "lease_expires_at": study.at + ttl_s,
                "parent": p.parent,
                "first_epoch": p.first_epoch,
            }
            for p in starting
        ],
    )
    study.waiting -= len(starting)
    study.running += len(starting)
    events: list[NewEvent] = []
    if study.started_at is None:
        study.started_at = study.at
        if study.seconds_limit is not None:
            study.deadline_at = study.at + study.seconds_limit
        events.append(study_event("study.started", study))
    where = f'"worker_id":{dumps(worker_id)},"device":{dumps(device)}'
    for p in starting:
        more = "" if p.parent is None else f',"parent":{p.parent},"first_epoch":{p.first_epoch}'
        more += "" if p.varied is None else ',"omits_fixed":true'
        fields = f'{{"hyperparameters":{p.text},"attempt":{p.reservation.attempt},{where}{more}}}'
        events.append(NewEvent("trial.started", fields, trial=p.reservation.number))
    return events


def held(session: Session, leases: Iterable[Lease], *, lock: bool = True) -> list[Row[Any]]:
    """The rows of the leases that still stand, by number, locked in that order; `at` is the database's time."""
    pairs = set(leases)
    if not pairs:
        return []
    connection = session.connection()
    query = (_HOLD if lock else _HELD)[connection.dialect.name]
    values = {"ids": [key for key, _ in pairs], "tokens": [token for _, token in pairs]}
    found: CursorResult[Any] = connection.execute(query, values)
    return [row for row in found if (row.id, row.lease_token) in pairs]


def renew(session: Session, leases: Sequence[Lease], ttl_s: float) -> set[int]:
    """Renew leases for `ttl_s` seconds; the ids of those that still stand."""
    standing = {row.id for row in held(session, leases)}
    if standing:
        connection = session.connection()
        connection.execute(_RENEW[connection.dialect.name], {"ids": list(standing), "ttl_s": ttl_s})
    return standing


def promise(session: Session, leases: Sequence[Lease], ttl_s: float) -> dict[int, float]:
    """Renew leases for `ttl_s` seconds, and remember that as their length; when those that stand expire, by id."""
    rows = held(session, leases)
    if rows:
        connection = session.connection()
        connection.execute(_PROMISE[connection.dialect.name], {"ids": [row.id for row in rows], "ttl_s": ttl_s})
    return {row.id: row.at + ttl_s for row in rows}


def standing(session: Session, leases: Sequence[Lease]) -> set[int]:
    """The ids of the leases that still stand; nothing is written."""
    return {row.id for row in held(session, leases, lock=False)}


def release(session: Session, study_id: int, leases: Sequence[Lease], reason: str) -> set[int]:
    """Give trials back uncharged: another worker runs them again, with the same hyperparameters if they had any."""
    study = lock_study(session, study_id)
    rows = held(session, leases)
    tell(study, _end_attempts(study, rows, reason=reason))
    return {row.id for row in rows}


def take_all(session: Session, study_id: int, reason: str, first: NewEvent) -> int:
    """Take back all leases of a study uncharged, whoever holds them, after an event `first`; how many there were."""
    study = lock_study(session, study_id)
    of_study = select(_t.c.id).where(_t.c.study_id == study.id, _t.c.lease_token.is_not(None))
    rows = list(lock_trials(study, study.connection.execute(of_study).scalars().all()).values())
    tell(study, [first, *_end_attempts(study, rows, reason=reason)])
    return len(rows)


def charge(
    session: Session, study_id: int, leases: Sequence[Lease], reason: FailureReason, code: str, message: str
) -> set[int]:
    """Give trials back whose attempt broke its trainer; the last attempt makes it FAIL with `reason`."""
    study = lock_study(session, study_id)
    rows = held(session, leases)
    events = _end_attempts(study, rows, reason=reason, charged=reason, code=code, message=message)
    tell(study, events)
    return {row.id for row in rows}


def fail(
    session: Session, study_id: int, leases: Sequence[Lease], reason: FailureReason, code: str, message: str
) -> set[int]:
    """End leased trials as FAIL before they trained: the sampler could not draw them."""
    study = lock_study(session, study_id)
    rows = held(session, leases)
    events = fail_trials(study, rows, reason=reason, code=code, message=message)
    tell(study, [*events, *settle(study)])
    return {row.id for row in rows}


def expired_studies(session: Session) -> list[int]:
    """Ids of the studies with a lease that has expired, or whose deadline has passed."""
    lapsed = select(Trial.study_id).where(Trial.lease_token.is_not(None), Trial.lease_expires_at < now())
    overdue = select(Study.id).where(
        Study.managed, Study.state.in_(("RUNNING", "PAUSED")), Study.halt_reason.is_(None), Study.deadline_at <= now()
    )
    return sorted(set(session.scalars(lapsed)) | set(session.scalars(overdue)))


def overdue(session: Session, late_s: float) -> tuple[int, float]:
    """How many leases expired more than so many seconds ago, and the seconds since the first of them did; (0, 0.0)."""
    late = Trial.lease_token.is_not(None), Trial.lease_expires_at < now() - late_s
    count, longest = session.execute(select(func.count(), func.max(now() - Trial.lease_expires_at)).where(*late)).one()
    return count, float(longest or 0.0)


def lapsed(session: Session, study_id: int) -> set[str]:
    """The tokens of the study's leases that have expired, its row locked: nobody was kept from renewing them by now."""
    study = lock_study(session, study_id)
    return {row.lease_token for row in study.connection.execute(_LAPSED, {"lapsed_study": study.id})}


def reap(session: Session, study_id: int, among: Collection[str] | None = None) -> int:
    """End the attempts of the study whose leases have expired, only those `among` these tokens; how many there were."""
    study = lock_study(session, study_id)
    found = study.connection.execute(_LAPSED, {"lapsed_study": study.id})
    rows = [row for row in found if among is None or row.lease_token in among]
    message = "The worker stopped renewing its lease."
    lost = FailureReason.LOST
    events = _end_attempts(study, rows, reason=lost, charged=lost, code="LEASE_EXPIRED", message=message)
    tell(study, events)
    return len(rows)


def _end_attempts(
    study: LockedStudy,
    rows: Sequence[Row[Any]],
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
    freed = []
    logs = []
    for row in again:
        ran = row.state == TrialState.RUNNING
        charged_now = row.charged + (1 if ran and charged else 0)
        freed.append({"key": row.id, "token": row.lease_token, "charged_now": charged_now})
        study.leased -= 1
        if ran:
            study.running -= 1
            study.waiting += 1
            events.append(NewEvent("trial.retried", {"attempt": row.attempt + 1, "reason": reason}, trial=row.number))
            if message:
                logs.append(
                    {"trial_id": row.id, "attempt": row.attempt, "text": f"{code}: {message}\n", "at": study.at}
                )
    if freed:
        study.connection.execute(_FREE, freed)
    write_logs(study, logs)
    if final:
        failure = charged or FailureReason.LOST
        events += fail_trials(study, final, reason=failure, code=code, message=message)
    return [*events, *settle(study)]
