"""What every change of a study shares: its counters, and the question whether it is over.

All functions here want the study's row locked by `app.store.locking`, change it in memory, and return the events that
tell what they did; the caller hands those to `tell` last, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, bindparam, func, select, text, update

from app.domain.direction import is_better
from app.domain.json import loads
from app.domain.study import FAILURES_IN_A_ROW, FIRST_FAILURES, StudyState
from app.domain.trial import BLAMELESS_REASONS, FailureReason, TrialState
from app.store.locking import LockedStudy
from app.store.log import NewEvent
from app.store.query import unindexed
from app.store.scoring import told_scores
from app.store.tables import Study, Trial, table_of

STUDY_ENDED = "STUDY_ENDED"
"""Error code of trials that were cancelled because their study ended."""


def progress_of(study: Study | LockedStudy) -> dict[str, Any]:
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


def best_of(study: Study | LockedStudy) -> dict[str, Any] | None:
    """The best trial's number and values by metric, or None without one (also with several objectives)."""
    if study.best_number is None:
        return None
    return {"number": study.best_number, "values": {loads(study.objective_metrics)[0]: study.best_value}}


def study_event(kind: str, study: Study | LockedStudy) -> NewEvent:
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


def count_end(study: LockedStudy, state: TrialState, reason: FailureReason | None) -> int:
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
    study: LockedStudy,
    rows: Sequence[Row[Any]],
    *,
    reason: FailureReason,
    code: str,
    message: str,
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
        seconds = None if row.started_at is None else max(0.0, study.at - row.started_at)
        changes.append({"key": row.id, "seq": count_end(study, TrialState.FAIL, reason), "token": row.lease_token})
        if row.attempt:
            logs.append({"trial_id": row.id, "attempt": row.attempt, "text": f"{code}: {message}\n", "at": study.at})
        events.append(trial_finished(row.number, TrialState.FAIL, reason, seconds=seconds))
    if changes:
        same = {"reason": reason, "error_code": code, "error_message": message, "finished_at": study.at}
        study.connection.execute(_FAIL, [{**change, **same} for change in changes])
    write_logs(study, logs)
    return events


_t = table_of(Trial)
# No fence: the row was read under its lock, and ends whoever holds it, whose next write finds no token any more.
_FAIL = (
    update(_t)
    .where(_t.c.id == bindparam("key"))
    .values(
        state=TrialState.FAIL,
        finish_seq=bindparam("seq"),
        finish_token=bindparam("token"),
        lease_token=None,
        lease_expires_at=None,
        **{name: bindparam(name) for name in ("reason", "error_code", "error_message", "finished_at")},
    )
)
_LOG = text(
    "INSERT INTO fettle_trial_logs (trial_id, attempt, text, at) VALUES (:trial_id, :attempt, :text, :at) "
    "ON CONFLICT (trial_id, attempt) DO UPDATE SET text = fettle_trial_logs.text || excluded.text, at = excluded.at"
)


def write_logs(study: LockedStudy, logs: Sequence[dict[str, Any]]) -> None:
    """Add to attempts' logs: each of `logs` has trial_id, attempt, text and at."""
    if logs:
        study.connection.execute(_LOG, logs)


def live_trials(study: LockedStudy, *states: TrialState) -> list[Row[Any]]:
    """The study's trials in `states` by number, locked, as `fail_trials` wants them."""
    query = (
        select(*(_t.c[name] for name in ("id", "number", "state", "attempt", "started_at", "lease_token")))
        .where(_t.c.study_id == study.id, _t.c.state.in_(states))
        .order_by(unindexed(_t.c.number))
        .with_for_update()
    )
    return list(study.connection.execute(query))


def cancel_live(study: LockedStudy, message: str, *states: TrialState) -> list[NewEvent]:
    """End the study's live trials in `states` as cancelled."""
    rows = live_trials(study, *states)
    return fail_trials(study, rows, reason=FailureReason.CANCELLED, code=STUDY_ENDED, message=message)


def end_study(study: LockedStudy, state: StudyState, reason: str) -> list[NewEvent]:
    """Put the study in its final state; the scores on its test part are told before that it is.

    One that would be COMPLETED with nothing but failures is FAILED.
    """
    failures = _only_failures(study) if state is StudyState.COMPLETED else None
    if failures is not None:
        state, reason = StudyState.FAILED, f"{reason.rstrip('.')}, and {failures}"
    study.state, study.state_reason, study.finished_at = state, reason, study.at
    return [*told_scores(study), study_event("study.finished", study)]


def settle(study: LockedStudy) -> list[NewEvent]:
    """What follows from the study's counters: limits that are met, and its end where nothing is left to do."""
    if StudyState(study.state).is_over:
        return []
    events: list[NewEvent] = []
    failure = _failure(study)
    if failure is not None:
        events += cancel_live(study, failure, TrialState.WAITING, TrialState.RUNNING)
        return [*events, *end_study(study, StudyState.FAILED, failure)]
    # In a deterministic study limits are looked at between generations: within one it is chance who ends first.
    if study.halt_reason is None and not (study.generation and study.leased):
        study.halt_reason = _limit_met(study)
    if study.halt_reason is not None:
        # A trial that was given back or lost meanwhile waits again: it must not keep the study open.
        if study.waiting:
            events += cancel_live(study, study.halt_reason, TrialState.WAITING)
        if study.running == 0:
            events += end_study(study, StudyState.COMPLETED, study.halt_reason)
    elif study.state == StudyState.STOPPING:
        if study.waiting:
            events += cancel_live(study, "The study is stopping.", TrialState.WAITING)
        if study.running == 0:
            events += end_study(study, StudyState.STOPPED, "Stopped by request.")
    elif study.waiting == 0 and study.running == 0:
        exhausted = _exhausted(study)
        if exhausted is not None:
            events += end_study(study, StudyState.COMPLETED, exhausted)
    return events


def _failure(study: LockedStudy) -> str | None:
    streak = study.own_failures_in_row
    if streak >= FIRST_FAILURES and study.complete + study.pruned == 0:
        return f"The first {streak} trials all failed: see their errors."
    if streak >= FAILURES_IN_A_ROW:
        return f"{streak} trials in a row failed: see their errors."
    return None


def _only_failures(study: LockedStudy) -> str | None:
    """In words why no trial ended well; None where one did, or none failed by itself."""
    if study.complete + study.pruned or not study.fail:
        return None
    failed = (_t.c.study_id == study.id, _t.c.state == TrialState.FAIL, _t.c.reason != FailureReason.CANCELLED)
    by_reason = select(_t.c.reason, func.count()).where(*failed).group_by(_t.c.reason).order_by(_t.c.reason)
    counts = [(count, reason) for reason, count in study.connection.execute(by_reason)]
    if all(reason in BLAMELESS_REASONS for _, reason in counts):
        return None
    total = sum(count for count, _ in counts)
    words = ", ".join(f"{count} {reason}" for count, reason in counts)
    return f"{total} trials failed ({words}), none ended well: see their errors."


def _limit_met(study: LockedStudy) -> str | None:
    target, best = study.target_value, study.best_value
    if target is not None and best is not None and not is_better(target, best, loads(study.directions)[0]):
        return f"Trial {study.best_number} reached the target {target:g} with {best:g}."
    if study.deadline_at is not None and study.at >= study.deadline_at:
        return f"The budget of {study.seconds_limit:g} seconds is spent."
    if study.device_seconds_limit is not None and study.device_seconds >= study.device_seconds_limit:
        return f"The budget of {study.device_seconds_limit:g} device seconds is spent."
    if study.no_improvement_limit is not None and study.since_improvement >= study.no_improvement_limit:
        return f"The last {study.since_improvement} trials brought no improvement."
    return None


def _exhausted(study: LockedStudy) -> str | None:
    if study.trial_limit is not None and study.next_number >= study.trial_limit:
        return f"All {study.trial_limit} trials of the budget are done."
    if study.sample_limit is not None and study.sampled_count >= study.sample_limit and study.generation_size:
        generations = study.sample_limit // study.generation_size
        return f"All {generations} generations of {study.generation_size} trials are done."
    if study.sample_limit is not None and study.sampled_count >= study.sample_limit:
        return f"The search space is exhausted: all {study.sample_limit} combinations were tried."
    return None
