"""Recording what attempts report and how they end, behind the fence of `app.store.leases`.

A write for a stack takes all its members at once: those whose lease is lost drop out, the others are written. Locks are
taken in the order study, trials by number, counter; metrics alone don't need the study's row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, Select, bindparam, case, delete, insert, select, update
from sqlalchemy.orm import Session

from app.domain.json import dumps, loads
from app.domain.trial import ArtifactPointer, Outcome, TrialState
from app.store.engine import now
from app.store.leases import holds
from app.store.log import NewEvent, append, clock
from app.store.settling import count_end, lock_study, settle, trial_finished, write_log
from app.store.tables import Artifact, Metric, Study, Trial, table_of


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
_ENDING: Select[Any] = (
    select(_t.c.id, _t.c.number, _t.c.state, _t.c.attempt, _t.c.started_at, _t.c.lease_token, _t.c.finish_token)
    .where(_t.c.id.in_(bindparam("ending", expanding=True)))
    .order_by(_t.c.number)
    .with_for_update()
)
_RECORDED_COLUMNS = (
    "state", "reason", "feasible", "objective_values", "value", "metrics", "selected_epoch", "epochs", "curve",
    "violations", "error_code", "error_message", "system_attributes", "device_seconds", "finished_at", "finish_seq",
)  # fmt: skip
_RECORD = (
    update(_t)
    .where(_t.c.id == bindparam("key"), _t.c.lease_token == bindparam("token"))
    .values(
        {name: bindparam(name) for name in _RECORDED_COLUMNS}
        | {"finish_token": bindparam("token"), "lease_token": None, "lease_expires_at": None}
    )
)
_ADD_METRICS = insert(table_of(Metric))


def record(session: Session, study_id: int, public_id: str, reports: Sequence[Report], ttl_s: float) -> set[int]:
    """Write metrics of running trials, in the order given, and renew their leases; the ids whose lease still stands."""
    if not reports:
        return set()
    at = clock(session)
    held = _touch(session, reports, ttl_s)
    append(session, study_id, public_id, _write_metrics(session, reports, held, at), at=at)
    return held


def _touch(session: Session, reports: Sequence[Report], ttl_s: float) -> set[int]:
    epochs = {r.trial_id: r.epoch + 1 for r in reports}
    # The rows are locked in the order of their numbers before they are written: two writers never wait in a circle.
    leases = {(r.trial_id, r.token) for r in reports}
    if len(epochs) > 1:
        session.execute(select(Trial.id).where(holds(leases)).order_by(Trial.number).with_for_update()).all()
    return set(
        session.scalars(
            update(Trial)
            .where(holds(leases, TrialState.RUNNING))
            .values(lease_expires_at=now() + ttl_s, epochs=case(epochs, value=Trial.id))
            .returning(Trial.id)
            .execution_options(synchronize_session=False)
        )
    )


def _write_metrics(session: Session, reports: Sequence[Report], held: set[int], at: float) -> list[NewEvent]:
    rows = []
    events = []
    for r in reports:
        if r.trial_id in held:
            rows.append(
                {"trial_id": r.trial_id, "attempt": r.attempt, "epoch": r.epoch, "metrics": dumps(r.metrics), "at": at}
            )
            fields = {"attempt": r.attempt, "epoch": r.epoch, "metrics": r.metrics}
            events.append(NewEvent("trial.metrics", fields, trial=r.number))
    if rows:
        session.connection().execute(_ADD_METRICS, rows)
    return events


def finish(
    session: Session, study_id: int, outcomes: Sequence[Outcome], reports: Sequence[Report], ttl_s: float
) -> Recorded:
    """Record how attempts ended, with the reports not yet written; the study ends with its last trial.

    Repeating a finish with the same token, after a commit whose answer was lost, changes nothing and is recorded.
    """
    study, at = lock_study(session, study_id)
    found = session.connection().execute(_ENDING, {"ending": [o.trial_id for o in outcomes]})
    rows: dict[int, Row[Any]] = {row.id: row for row in found}
    recorded = Recorded()
    events: list[NewEvent] = []
    standing: list[tuple[Outcome, Row[Any]]] = []
    for outcome in outcomes:
        row = rows.get(outcome.trial_id)
        if row is not None and row.lease_token == outcome.token and row.state == TrialState.RUNNING:
            standing.append((outcome, row))
        elif row is not None and row.finish_token == outcome.token and row.state == outcome.state:
            recorded.trial_ids.add(row.id)
    ended = {outcome.trial_id for outcome, _ in standing}
    others = [r for r in reports if r.trial_id not in ended]
    held = ended | (_touch(session, others, ttl_s) if others else set())
    events += _write_metrics(session, reports, held, at)
    for outcome, row in standing:
        events += _record_outcome(session, study, outcome, row, at, recorded)
    events += settle(session, study, at)
    append(session, study.id, study.public_id, events, at=at)
    return recorded


def _record_outcome(
    session: Session, study: Study, outcome: Outcome, row: Row[Any], at: float, recorded: Recorded
) -> list[NewEvent]:
    seconds = max(0.0, at - row.started_at)
    by_metric = None
    if outcome.values is not None:
        by_metric = dict(zip(loads(study.objective_metrics), outcome.values, strict=True))
    session.connection().execute(
        _RECORD,
        {
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
            "error_code": outcome.error_code,
            "error_message": outcome.error_message,
            "system_attributes": dumps(outcome.system_attributes),
            "device_seconds": outcome.device_seconds,
            "finished_at": at,
            "finish_seq": count_end(study, outcome.state, outcome.reason),
        },
    )
    recorded.trial_ids.add(outcome.trial_id)
    study.running -= 1
    study.leased -= 1
    study.device_seconds += outcome.device_seconds
    if outcome.log:
        write_log(session, outcome.trial_id, row.attempt, outcome.log, at)
    events = [
        trial_finished(
            row.number, outcome.state, outcome.reason, seconds=seconds, feasible=outcome.feasible, values=by_metric
        )
    ]
    better = _is_better(study, outcome)
    if better:
        study.best_number, study.best_value, study.since_improvement = row.number, (outcome.values or ())[0], 0
        hyperparameters = session.scalar(select(Trial.hyperparameters).where(Trial.id == outcome.trial_id))
        fields = {"values": by_metric, "hyperparameters": loads(hyperparameters or "{}")}
        events.append(NewEvent("trial.best", fields, trial=row.number))
    else:
        study.since_improvement += 1
    _publish(session, study, outcome, row.attempt, better, at, recorded)
    return events


def _is_better(study: Study, outcome: Outcome) -> bool:
    """Whether a feasible COMPLETE trial beats the best one so far; with several objectives there is no best one."""
    directions = loads(study.directions)
    if outcome.state is not TrialState.COMPLETE or not outcome.feasible or not outcome.values or len(directions) != 1:
        return False
    value = outcome.values[0]
    if study.best_value is None:
        return True
    return value > study.best_value if directions[0] == "maximize" else value < study.best_value


def _publish(
    session: Session, study: Study, outcome: Outcome, attempt: int, better: bool, at: float, recorded: Recorded
) -> None:
    """Point to the attempt's files; where only the best model is kept, no longer to those of other trials."""
    kept: list[ArtifactPointer] = list(outcome.artifacts)
    if study.keep_models == "best" and len(loads(study.directions)) == 1 and kept:
        if not better:
            # Another trial was recorded as the best meanwhile.
            recorded.superseded_paths += [a.path for a in kept]
            return
        others = select(Trial.id).where(Trial.study_id == study.id, Trial.id != outcome.trial_id).scalar_subquery()
        gone = session.scalars(delete(Artifact).where(Artifact.trial_id.in_(others)).returning(Artifact.path))
        recorded.superseded_paths += list(gone)
    for artifact in kept:
        session.execute(
            insert(Artifact).values(
                trial_id=outcome.trial_id,
                name=artifact.name,
                attempt=attempt,
                path=artifact.path,
                media_type=artifact.media_type,
                size_bytes=artifact.size_bytes,
                details=dumps(artifact.details),
                created_at=at,
            )
        )
