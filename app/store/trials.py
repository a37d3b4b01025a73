"""Reading trials, their metrics and their logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, tuple_
from sqlalchemy.orm import Session, defer

from app.domain.json import decode_number, loads
from app.domain.trial import TrialState
from app.errors import NotFound
from app.store.tables import Metric, Trial, TrialLog

UNREAD = (
    defer(Trial.curve),
    defer(Trial.violations),
    defer(Trial.user_attributes),
    defer(Trial.system_attributes),
    defer(Trial.optuna_params),
)
"""Columns that only samplers and pruners read."""


def find_trial(session: Session, study_id: int, number: int) -> Trial:
    """The trial with this number.

    Raises:
        NotFound: the study has none.
    """
    query = select(Trial).options(*UNREAD).where(Trial.study_id == study_id, Trial.number == number)
    trial = session.scalars(query).one_or_none()
    if trial is None:
        raise NotFound(f"Expected the number of a trial. Received: {number}", code="TRIAL_NOT_FOUND")
    return trial


def list_trials(
    session: Session,
    study_id: int,
    *,
    states: Sequence[TrialState] = (),
    feasible: bool | None = None,
    sort: str = "number",
    after: tuple[Any, ...] | None = None,
    limit: int,
) -> list[Trial]:
    """Up to `limit` trials after a sort key, by `number`, `-number`, `value` or `-value`; those without value last."""
    query = select(Trial).options(*UNREAD).where(Trial.study_id == study_id)
    if states:
        query = query.where(Trial.state.in_(states))
    if feasible is not None:
        query = query.where(Trial.feasible.is_(feasible))
    descending = sort.startswith("-")
    if sort.endswith("number"):
        if after is not None:
            query = query.where(Trial.number < after[0] if descending else Trial.number > after[0])
        query = query.order_by(Trial.number.desc() if descending else Trial.number)
    else:
        if after is not None:
            query = query.where(_beyond_value(after, descending=descending))
        value = Trial.value.desc() if descending else Trial.value
        query = query.order_by(Trial.value.is_(None), value, Trial.number)
    return list(session.scalars(query.limit(limit)))


def _beyond_value(after: tuple[Any, ...], *, descending: bool) -> ColumnElement[bool]:
    value, number = after
    if value is None:
        return and_(Trial.value.is_(None), Trial.number > number)
    further = Trial.value < value if descending else Trial.value > value
    return or_(further, and_(Trial.value == value, Trial.number > number), Trial.value.is_(None))


def sort_key(trial: Trial, sort: str) -> tuple[Any, ...]:
    """Where the trial stands in a list."""
    return (trial.number,) if sort.endswith("number") else (trial.value, trial.number)


@dataclass(frozen=True, slots=True)
class ObjectiveValues:
    """What decides whether a trial is among the best."""

    number: int
    state: str
    feasible: bool | None
    values: tuple[float, ...] | None


def objective_values(session: Session, study_id: int) -> list[ObjectiveValues]:
    """The feasible COMPLETE trials of a study by number, with their values alone."""
    query = (
        select(Trial.number, Trial.state, Trial.feasible, Trial.objective_values)
        .where(Trial.study_id == study_id, Trial.state == TrialState.COMPLETE, Trial.feasible.is_(True))
        .order_by(Trial.number)
    )
    return [
        ObjectiveValues(number, state, feasible, tuple(decode_number(v) for v in loads(values)) if values else None)
        for number, state, feasible, values in session.execute(query)
    ]


def trials_by_number(session: Session, study_id: int, numbers: Sequence[int]) -> list[Trial]:
    """The trials with these numbers, by number."""
    query = select(Trial).options(*UNREAD).where(Trial.study_id == study_id).order_by(Trial.number)
    found: list[Trial] = []
    for i in range(0, len(numbers), 500):
        found += session.scalars(query.where(Trial.number.in_(numbers[i : i + 500])))
    return found


def last_metrics(session: Session, trials: Sequence[Trial]) -> dict[int, str]:
    """The metrics of the last epoch that each trial's current attempt reported, as JSON, by the trial's id."""
    wanted = [(t.id, t.attempt, t.epochs - 1) for t in trials if t.epochs > 0]
    if not wanted:
        return {}
    query = select(Metric.trial_id, Metric.metrics)
    found: dict[int, str] = {}
    for i in range(0, len(wanted), 200):
        some = wanted[i : i + 200]
        rows = session.execute(query.where(tuple_(Metric.trial_id, Metric.attempt, Metric.epoch).in_(some)))
        found.update((row.trial_id, row.metrics) for row in rows)
    return found


def metrics_of(session: Session, trial: Trial, attempt: int | None) -> list[Metric]:
    """What an attempt of the trial reported, by epoch; by default the current attempt."""
    wanted = trial.attempt if attempt is None else attempt
    query = select(Metric).where(Metric.trial_id == trial.id, Metric.attempt == wanted).order_by(Metric.epoch)
    return list(session.scalars(query))


def logs_of(session: Session, trial: Trial, attempt: int | None) -> str:
    """What the trial's attempts logged, or one of them."""
    query = select(TrialLog.text).where(TrialLog.trial_id == trial.id).order_by(TrialLog.attempt)
    if attempt is not None:
        query = query.where(TrialLog.attempt == attempt)
    return "".join(text if text.endswith("\n") else text + "\n" for text in session.scalars(query) if text)
