"""What every change of a study shares: its lock, its counters, and the question whether it is over.

All functions here want the study's row locked by `lock_study`, change it in memory, and return the events that tell
what they did; the caller appends those last, in the same transaction.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, bindparam, insert, select, update
from sqlalchemy.orm import Session

from app.domain.families import Scalar
from app.domain.json import loads
from app.domain.study import FAILURES_IN_A_ROW, FIRST_FAILURES, StudyState
from app.domain.trial import BLAMELESS_REASONS, FailureReason, TrialState
from app.errors import NotFound
from app.store.engine import now
from app.store.log import NewEvent
from app.store.tables import Study, Trial, TrialLog

STUDY_ENDED = "STUDY_ENDED"
"""Error code of trials that were cancelled because their study ended."""


def lock_study(session: Session, study_id: int) -> tuple[Study, float]:
    """The study's row, locked until the transaction ends, and the database's time.

    The lock leaves foreign keys alone (FOR NO KEY UPDATE), so that recording metrics doesn't wait for it.

    Raises:
        NotFound: there is no such study (any more).
    """
    row = session.execute(_LOCK, {"locked_study": study_id}).one_or_none()
    if row is None:
        raise NotFound("Expected a study that exists. Received one that was deleted.", code="STUDY_NOT_FOUND")
    return row[0], float(row[1])


_LOCK = (
    select(Study, now())
    .where(Study.id == bindparam("locked_study"))
    .with_for_update(key_share=True, of=Study)
    .execution_options(populate_existing=True)
)
"""Built once, like all statements on a trial's way: building one costs more than running it."""


def progress_of(study: Study) -> dict[str, Any]:
    """The study's progress as the contract shows it."""
    return {
        "waiting": study.waiting,
        "running": study.running,
        "complete": study.complete,
        "pruned": study.pruned,
        "fail": study.fail,
        "total_budget": study.trial_limit,
        "device_seconds": round(study.device_seconds, 6),
    }


def best_of(study: Study) -> dict[str, Any] | None:
    """The best trial's number and values by metric, or None without one (also with several objectives)."""
    if study.best_number is None:
        return None
    return {"number": study.best_number, "values": {loads(study.objective_metrics)[0]: study.best_value}}


def study_event(kind: str, study: Study) -> NewEvent:
    """An event about the study as a whole; `study.finished` carries progress and best."""
    fields: dict[str, Any] = {"state": study.state, "state_reason": study.state_reason}
    if kind == "study.finished":
        fields |= {"progress": progress_of(study), "best": best_of(study)}
    return NewEvent(kind, fields)


def trial_finished(
    number: int, state: TrialState, reason: FailureReason | None, *, seconds: float | None, **fields: Any
) -> NewEvent:
    """The event `trial.finished`; `fields` may give `feasible` and `values`."""
    told = {"feasible": None, "values": None} | fields
    return NewEvent(
        "trial.finished", {"state": state, "reason": reason, **told, "duration_seconds": seconds}, trial=number
    )


def count_end(study: Study, state: TrialState, reason: FailureReason | None) -> int:
    """Count a trial that ended in `state`; its place in the order of finishing, from 1."""
    study.finished_count += 1
    if state is TrialState.COMPLETE:
        study.complete += 1
    elif state is TrialState.PRUNED:
        study.pruned += 1
    else:
        study.fail += 1
    if state is not TrialState.FAIL:
        study.own_failures_in_row = 0
    elif reason not in BLAMELESS_REASONS:
        study.own_failures_in_row += 1
    return study.finished_count


def fail_trials(
    session: Session, study: Study, rows: list[Row[Any]], at: float, *, reason: FailureReason, code: str, message: str
) -> list[NewEvent]:
    """End live trials as FAIL. `rows` have id, number, state, attempt, started_at and lease_token."""
    events = []
    changes = []
    logs = []
    for row in rows:
        if row.state == TrialState.RUNNING:
            study.running -= 1
        else:
            study.waiting -= 1
        if row.lease_token is not None:
            study.leased -= 1
        seconds = None if row.started_at is None else max(0.0, at - row.started_at)
        changes.append({"key": row.id, "seq": count_end(study, TrialState.FAIL, reason), "token": row.lease_token})
        if row.attempt:
            logs.append({"trial_id": row.id, "attempt": row.attempt, "text": f"{code}: {message}\n", "at": at})
        events.append(trial_finished(row.number, TrialState.FAIL, reason, seconds=seconds))
    if changes:
        table = Trial.__table__
        session.connection().execute(
            update(Trial)
            .where(table.c.id == bindparam("key"))
            .values(
                state=TrialState.FAIL,
                reason=reason,
                error_code=code,
                error_message=message,
                finished_at=at,
                finish_seq=bindparam("seq"),
                finish_token=bindparam("token"),
                lease_token=None,
                lease_expires_at=None,
            ),
            changes,
        )
    if logs:
        _add_logs(session, logs)
    return events


def _add_logs(session: Session, logs: list[dict[str, Scalar]]) -> None:
    """Add lines to attempts' logs."""
    for log in logs:
        changed = session.execute(
            update(TrialLog)
            .where(TrialLog.trial_id == log["trial_id"], TrialLog.attempt == log["attempt"])
            .values(text=TrialLog.text + log["text"], at=log["at"])
            .returning(TrialLog.attempt)
        ).scalar()
        if changed is None:
            session.execute(insert(TrialLog).values(**log))


def write_log(session: Session, trial_id: int, attempt: int, text: str, at: float) -> None:
    """Add `text` to the log of an attempt."""
    _add_logs(session, [{"trial_id": trial_id, "attempt": attempt, "text": text, "at": at}])


def live_trials(session: Session, study: Study, *states: TrialState) -> list[Row[Any]]:
    """The study's trials in `states` by number, locked, as `fail_trials` wants them."""
    query = (
        select(Trial.id, Trial.number, Trial.state, Trial.attempt, Trial.started_at, Trial.lease_token)
        .where(Trial.study_id == study.id, Trial.state.in_(states))
        .order_by(Trial.number)
        .with_for_update()
    )
    return list(session.execute(query))


def cancel_live(session: Session, study: Study, at: float, message: str, *states: TrialState) -> list[NewEvent]:
    """End the study's live trials in `states` as cancelled."""
    rows = live_trials(session, study, *states)
    return fail_trials(session, study, rows, at, reason=FailureReason.CANCELLED, code=STUDY_ENDED, message=message)


def end_study(study: Study, state: StudyState, reason: str, at: float) -> NewEvent:
    """Put the study in its final state."""
    study.state, study.state_reason, study.finished_at = state, reason, at
    return study_event("study.finished", study)


def settle(session: Session, study: Study, at: float) -> list[NewEvent]:
    """What follows from the study's counters: limits that are met, and its end where nothing is left to do."""
    if StudyState(study.state).is_over:
        return []
    events: list[NewEvent] = []
    failure = _failure(study)
    if failure is not None:
        events += cancel_live(session, study, at, failure, TrialState.WAITING, TrialState.RUNNING)
        return [*events, end_study(study, StudyState.FAILED, failure, at)]
    if study.halt_reason is None:
        study.halt_reason = _limit_met(study, at)
    if study.halt_reason is not None:
        # A trial that was given back or lost meanwhile waits again: it must not keep the study open.
        if study.waiting:
            events += cancel_live(session, study, at, study.halt_reason, TrialState.WAITING)
        if study.running == 0:
            events.append(end_study(study, StudyState.COMPLETED, study.halt_reason, at))
    elif study.state == StudyState.STOPPING:
        if study.waiting:
            events += cancel_live(session, study, at, "The study is stopping.", TrialState.WAITING)
        if study.running == 0:
            events.append(end_study(study, StudyState.STOPPED, "Stopped by request.", at))
    elif study.waiting == 0 and study.running == 0:
        exhausted = _exhausted(study)
        if exhausted is not None:
            events.append(end_study(study, StudyState.COMPLETED, exhausted, at))
    return events


def _failure(study: Study) -> str | None:
    streak = study.own_failures_in_row
    if streak >= FIRST_FAILURES and study.complete + study.pruned == 0:
        return f"The first {streak} trials all failed: see their errors."
    if streak >= FAILURES_IN_A_ROW:
        return f"{streak} trials in a row failed: see their errors."
    return None


def _limit_met(study: Study, at: float) -> str | None:
    target = study.target_value
    if target is not None and study.best_value is not None:
        maximize = loads(study.directions)[0] == "maximize"
        if study.best_value >= target if maximize else study.best_value <= target:
            return f"Trial {study.best_number} reached the target {target:g} with {study.best_value:g}."
    if study.deadline_at is not None and at >= study.deadline_at:
        return f"The budget of {study.seconds_limit:g} seconds is spent."
    if study.device_seconds_limit is not None and study.device_seconds >= study.device_seconds_limit:
        return f"The budget of {study.device_seconds_limit:g} device seconds is spent."
    if study.no_improvement_limit is not None and study.since_improvement >= study.no_improvement_limit:
        return f"The last {study.since_improvement} trials brought no improvement."
    return None


def _exhausted(study: Study) -> str | None:
    if study.trial_limit is not None and study.next_number >= study.trial_limit:
        return f"All {study.trial_limit} trials of the budget are done."
    if study.sample_limit is not None and study.sampled_count >= study.sample_limit:
        return f"The search space is exhausted: all {study.sample_limit} combinations were tried."
    return None
