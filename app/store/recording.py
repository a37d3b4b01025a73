"""Recording what attempts report and how they end, behind the fence of `app.store.leases`.

A write for a stack takes all its members at once: those whose lease is lost drop out, the others are written. Locks are
taken in the order study, trials by number, counter; metrics alone don't need the study's row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, bindparam, update
from sqlalchemy.orm import Session

from app.domain.direction import is_better
from app.domain.json import dumps, loads
from app.domain.trial import Outcome, TrialState
from app.store import checkpoints
from app.store.fence import FENCED, stands
from app.store.leases import held
from app.store.locking import LockedStudy, lock_study, lock_trials, tell
from app.store.log import NewEvent, append_to
from app.store.publishing import Published
from app.store.query import Along, Rows
from app.store.settling import count_end, settle, trial_finished, write_logs
from app.store.tables import Metric, Trial, table_of


@dataclass(frozen=True, slots=True)
class Report:
    """The metrics of one epoch of a leased trial."""

    trial_id: int
    token: str
    number: int
    attempt: int
    epoch: int
    metrics: dict[str, float]


@dataclass(slots=True)
class Recorded:
    """What `finish` did: the ids whose outcome stands, and artifact paths that nothing points to any more."""

    trial_ids: set[int] = field(default_factory=set)
    superseded_paths: list[str] = field(default_factory=list)


_t = table_of(Trial)

# Statements on a trial's way are built once: building one costs more than running it.
_RECORDED_COLUMNS = (
    "state", "reason", "feasible", "objective_values", "value", "metrics", "selected_epoch", "epochs", "curve",
    "violations", "test_metrics", "error_code", "error_message", "system_attributes", "device_seconds", "finished_at",
    "finish_seq",
)  # fmt: skip
_RECORD = (
    update(_t)
    .where(*FENCED)
    .values(
        {name: bindparam(name) for name in _RECORDED_COLUMNS}
        | {"finish_token": bindparam("token"), "lease_token": None, "lease_expires_at": None}
    )
)
_TOUCH = update(_t).where(*FENCED).values(lease_expires_at=bindparam("expires_at"), epochs=bindparam("epochs_now"))
_METRICS = Rows(table_of(Metric), "trial_id", "attempt", "epoch", "metrics", "at")


def record(session: Session, study_id: int, public_id: str, reports: Sequence[Report], ttl_s: float) -> set[int]:
    """Write metrics of running trials, in the order given, and renew their leases; the ids whose lease still stands.

    Repeating it, after a commit whose answer was lost, writes nothing twice.
    """
    rows = {row.id: row for row in held(session, ((r.trial_id, r.token) for r in reports))}
    standing = _standing(rows, reports)
    unwritten = _unwritten(rows, standing)
    if not unwritten:
        return {r.trial_id for r in standing}
    at: float = rows[standing[0].trial_id].at
    connection = session.connection()
    _touch(connection, unwritten, at + ttl_s)
    events, along = _write_metrics(connection, unwritten, at)
    append_to(connection, study_id, public_id, events, at=at, along=along)
    return {r.trial_id for r in standing}


def _standing(rows: Mapping[int, Row[Any]], reports: Iterable[Report]) -> list[Report]:
    """The reports of running trials whose lease is still the reporter's; `rows` are locked."""
    running = {key: row.lease_token for key, row in rows.items() if row.state == TrialState.RUNNING}
    return [r for r in reports if running.get(r.trial_id) == r.token]


def _unwritten(rows: Mapping[int, Row[Any]], reports: Iterable[Report]) -> list[Report]:
    """Those of the reports that the trials' rows do not count yet."""
    return [r for r in reports if r.epoch >= rows[r.trial_id].epochs]


def _touch(connection: Connection, reports: Sequence[Report], expires_at: float) -> None:
    """Renew the leases of trials that reported, and count their epochs."""
    last = {r.trial_id: r for r in reports}
    if last:
        changes = [
            {"key": r.trial_id, "token": r.token, "expires_at": expires_at, "epochs_now": r.epoch + 1}
            for r in last.values()
        ]
        connection.execute(_TOUCH, changes)


def _write_metrics(connection: Connection, reports: Sequence[Report], at: float) -> tuple[list[NewEvent], list[Along]]:
    """Write metrics, or give what writes them along with their events, which come first."""
    rows = []
    events = []
    for r in reports:
        metrics = dumps(r.metrics)
        rows.append((r.trial_id, r.attempt, r.epoch, metrics, at))
        fields = f'{{"attempt":{r.attempt},"epoch":{r.epoch},"metrics":{metrics}}}'
        events.append(NewEvent("trial.metrics", fields, trial=r.number))
    return events, _METRICS.add_along(connection, rows)


def finish(
    session: Session, study_id: int, outcomes: Sequence[Outcome], reports: Sequence[Report], ttl_s: float
) -> Recorded:
    """Record how attempts ended, with the reports not yet written; the study ends with its last trial.

    Repeating a finish with the same token, after a commit whose answer was lost, changes nothing and is recorded.

    Raises:
        NotFound: the study was deleted.
    """
    study = lock_study(session, study_id)
    rows = lock_trials(study, concerned(outcomes, reports))
    recorded, events = finish_locked(study, rows, outcomes, reports, ttl_s)
    tell(study, events)
    return recorded


def concerned(outcomes: Iterable[Outcome], reports: Iterable[Report]) -> set[int]:
    """The ids of the trials that outcomes and reports are about: whoever writes them locks all of them at once."""
    return {o.trial_id for o in outcomes} | {r.trial_id for r in reports}


def finish_locked(
    study: LockedStudy,
    rows: Mapping[int, Row[Any]],
    outcomes: Sequence[Outcome],
    reports: Sequence[Report],
    ttl_s: float,
) -> tuple[Recorded, list[NewEvent]]:
    """Record ends and reports of trials of a locked study, whose `rows` are locked, and settle the study."""
    recorded = Recorded()
    ending: list[tuple[Outcome, Row[Any]]] = []
    for outcome in outcomes:
        row = rows.get(outcome.trial_id)
        if stands(row, outcome.token, TrialState.RUNNING):
            ending.append((outcome, row))
        elif row is not None and row.finish_token == outcome.token and row.state == outcome.state:
            recorded.trial_ids.add(row.id)
    unwritten = _unwritten(rows, _standing(rows, reports))
    ended = {outcome.trial_id for outcome, _ in ending}
    _touch(study.connection, [r for r in unwritten if r.trial_id not in ended], study.at + ttl_s)
    events, along = _write_metrics(study.connection, unwritten, study.at)
    study.along += along
    events += _record_outcomes(study, ending, recorded)
    return recorded, [*events, *settle(study)]


def _record_outcomes(
    study: LockedStudy, ending: Sequence[tuple[Outcome, Row[Any]]], recorded: Recorded
) -> list[NewEvent]:
    if not ending:
        return []
    directions, metrics = loads(study.directions), loads(study.objective_metrics)
    changes, logs, published = [], [], Published(study, directions)
    events: list[NewEvent] = []
    for outcome, row in ending:
        changes.append(_columns(outcome, study.at, count_end(study, outcome.state, outcome.reason)))
        recorded.trial_ids.add(outcome.trial_id)
        study.running -= 1
        study.leased -= 1
        study.device_seconds += outcome.device_seconds
        if outcome.log:
            logs.append({"trial_id": outcome.trial_id, "attempt": row.attempt, "text": outcome.log, "at": study.at})
        values = None if outcome.values is None else dict(zip(metrics, outcome.values, strict=True))
        events.append(_finished(outcome, row, values, study.at))
        better = _is_better(study, outcome, directions)
        if better:
            study.best_number, study.best_value, study.since_improvement = row.number, (outcome.values or ())[0], 0
            kept = row.hyperparameters or row.varied or "{}"
            omits = ',"omits_fixed":true' if row.hyperparameters is None and row.varied is not None else ""
            fields = f'{{"values":{dumps(values)},"hyperparameters":{kept}{omits}}}'
            events.append(NewEvent("trial.best", fields, trial=row.number))
        else:
            study.since_improvement += 1
        published.add(outcome, row.attempt, better=better)
    study.connection.execute(_RECORD, changes)
    left = [checkpoints.New(o.trial_id, o.token, row.attempt, o.checkpoint) for o, row in ending if o.checkpoint]
    recorded.superseded_paths += checkpoints.put(study.connection, left, at=study.at)
    write_logs(study, logs)
    recorded.superseded_paths += published.write()
    return events


def _columns(outcome: Outcome, at: float, finish_seq: int) -> dict[str, Any]:
    """What the trial's row keeps of its outcome."""
    return {
        "key": outcome.trial_id,
        "token": outcome.token,
        "state": outcome.state,
        "reason": outcome.reason,
        "feasible": outcome.feasible,
        "objective_values": None if outcome.values is None else dumps(list(outcome.values)),
        "value": None if outcome.values is None else outcome.values[0],
        "metrics": None if outcome.metrics is None else dumps(outcome.metrics),
        "selected_epoch": outcome.selected_epoch,
        "epochs": outcome.epochs,
        "curve": dumps(outcome.curve),
        "violations": dumps(outcome.violations) if outcome.violations else None,
        "test_metrics": dumps(outcome.test_metrics) if outcome.test_metrics else None,
        "error_code": outcome.error_code,
        "error_message": outcome.error_message,
        "system_attributes": dumps(outcome.system_attributes),
        "device_seconds": outcome.device_seconds,
        "finished_at": at,
        "finish_seq": finish_seq,
    }


def _finished(outcome: Outcome, row: Row[Any], values: dict[str, float] | None, at: float) -> NewEvent:
    seconds = max(0.0, at - row.started_at)
    return trial_finished(
        row.number, outcome.state, outcome.reason, seconds=seconds, feasible=outcome.feasible, values=values
    )


def _is_better(study: LockedStudy, outcome: Outcome, directions: Sequence[str]) -> bool:
    """Whether a feasible COMPLETE trial beats the best one so far; with several objectives there is no best one."""
    if outcome.state is not TrialState.COMPLETE or not outcome.feasible or not outcome.values or len(directions) != 1:
        return False
    return study.best_value is None or is_better(outcome.values[0], study.best_value, directions[0])
