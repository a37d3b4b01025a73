"""Ends and beginnings of trials of one study in one transaction, its row locked once.

A transaction costs more than what it writes: a worker that trains one trial after the other needs two a trial, this and
`app.store.leases.start`; one that refills a stack's slots needs one for all that end and begin between two epochs.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.domain.study import StudyState
from app.domain.trial import Outcome, Proposal, Reservation, TrialState
from app.store import checkpoints, leases
from app.store.leases import start_locked
from app.store.locking import lock_study, lock_trials, tell
from app.store.recording import Recorded, Report, concerned, finish_locked, record
from app.store.reserving import reserve_locked


def finish_and_reserve(
    session: Session,
    study_id: int,
    outcomes: Sequence[Outcome],
    reports: Sequence[Report],
    count: int,
    worker_id: str,
    ttl_s: float,
) -> tuple[Recorded, list[Reservation]]:
    """Record ends as `recording.finish`, then reserve up to `count` trials as `leases.reserve`.

    Repeating it, after a commit whose answer was lost, records nothing twice; the reservations of the first time are
    free again when their leases expire.

    Raises:
        NotFound: the study was deleted.
    """
    study = lock_study(session, study_id)
    rows = lock_trials(study, concerned(outcomes, reports))
    recorded, events = finish_locked(study, rows, outcomes, reports, ttl_s)
    reservations = reserve_locked(study, worker_id, count, ttl_s)
    tell(study, events)
    return recorded, reservations


def finish_and_start(
    session: Session,
    study_id: int,
    outcomes: Sequence[Outcome],
    reports: Sequence[Report],
    proposals: Sequence[Proposal],
    worker_id: str,
    device: str,
    ttl_s: float,
) -> tuple[Recorded, set[int]]:
    """Record ends as `recording.finish`, then start sampled reservations as `leases.start`; both safe to repeat.

    Raises:
        NotFound: the study was deleted.
    """
    study = lock_study(session, study_id)
    starting = {p.reservation.trial_id for p in proposals}
    rows = lock_trials(study, concerned(outcomes, reports) | starting)
    recorded, events = finish_locked(study, rows, outcomes, reports, ttl_s)
    # The rows tell what was before: those that ended just now, by themselves or with their study, start no more.
    over = set(rows) if StudyState(study.state).is_over else recorded.trial_ids
    live = {key: row for key, row in rows.items() if key not in over}
    started, begun = start_locked(study, live, proposals, worker_id, device, ttl_s)
    tell(study, [*events, *begun])
    return recorded, started


def record_and_checkpoint(
    session: Session,
    study_id: int,
    public_id: str,
    written: Sequence[checkpoints.New],
    reports: Sequence[Report],
    ttl_s: float,
) -> tuple[set[int], list[str]]:
    """Point to checkpoints of running trials, and write all reports that wait.

    Gives the ids of the trials whose lease still stands, and the paths that nothing points to any more.
    """
    pairs: list[leases.Lease] = [(c.trial_id, c.token) for c in written] + [(r.trial_id, r.token) for r in reports]
    rows = {row.id: row for row in leases.held(session, pairs)}
    running = {row.id: row.lease_token for row in rows.values() if row.state == TrialState.RUNNING}
    standing = [c for c in written if running.get(c.trial_id) == c.token]
    superseded = checkpoints.put(session.connection(), standing, at=max((row.at for row in rows.values()), default=0.0))
    record(session, study_id, public_id, reports, ttl_s)
    return {c.trial_id for c in standing}, superseded
