"""Reading trials: their state, metrics, logs and files, and those that they went on from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session, defer

from app.domain.json import decode_number, loads
from app.domain.trial import TrialState
from app.errors import NotFound
from app.store.listing import SHOWN, ShownTrial
from app.store.portions import PAGE_BYTES, Portion, portion
from app.store.query import among_ids
from app.store.tables import Artifact, Metric, Trial, TrialLog, table_of

_t, _m = table_of(Trial), table_of(Metric)
_LAST_METRICS = {
    dialect: select(_m.c.trial_id, _m.c.metrics)
    .join(_t, (_t.c.id == _m.c.trial_id) & (_t.c.attempt == _m.c.attempt) & (_m.c.epoch == _t.c.epochs - 1))
    .where(among)
    for dialect, among in among_ids(_t.c.id).items()
}
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


def ids_by_number(session: Session, study_id: int, numbers: Sequence[int]) -> list[int]:
    """The row ids of the trials with these numbers, by number."""
    query = select(Trial.id).where(Trial.study_id == study_id).order_by(Trial.number)
    found: list[int] = []
    for i in range(0, len(numbers), 500):
        found += session.scalars(query.where(Trial.number.in_(numbers[i : i + 500])))
    return found


def trials_by_number(session: Session, study_id: int, numbers: Sequence[int]) -> list[ShownTrial]:
    """The trials with these numbers, by number."""
    query = select(*SHOWN).where(Trial.study_id == study_id).order_by(Trial.number)
    found: list[ShownTrial] = []
    for i in range(0, len(numbers), 500):
        found += map(ShownTrial._make, session.execute(query.where(Trial.number.in_(numbers[i : i + 500]))))
    return found


@dataclass(frozen=True, slots=True)
class Failures:
    """How many trials failed for one reason, with one error code; the last of them by number."""

    reason: str
    code: str
    count: int
    last_number: int


def failures(session: Session, study_id: int) -> list[Failures]:
    """Why trials of a study failed, the most frequent reason first."""
    grouped = (Trial.reason, Trial.error_code)
    query = (
        select(*grouped, func.count(), func.max(Trial.number))
        .where(Trial.study_id == study_id, Trial.state == TrialState.FAIL)
        .group_by(*grouped)
    )
    found = [Failures(reason or "?", code or "?", count, last) for reason, code, count, last in session.execute(query)]
    return sorted(found, key=lambda one: (-one.count, one.reason, one.code))


def last_metrics(session: Session, trials: Sequence[ShownTrial | Row[Any]]) -> dict[int, str]:
    """The metrics of the last epoch that each trial's current attempt reported, as JSON, by the trial's id."""
    ids = [t.id for t in trials if t.epochs > 0]
    if not ids:
        return {}
    rows = session.connection().execute(_LAST_METRICS[session.get_bind().dialect.name], {"ids": ids})
    return {row.trial_id: row.metrics for row in rows}


def results_after(session: Session, study_id: int, number: int, limit: int) -> tuple[list[str], int | None]:
    """The metrics of up to `limit` trials after one, as JSON texts, and the last one's number where there are more."""
    query = (
        select(Trial.id, Trial.number, Trial.epochs, Trial.metrics)
        .where(Trial.study_id == study_id, Trial.number > number)
        .order_by(Trial.number)
        .limit(limit)
    )
    found = portion(session, query, "metrics", ["number"], PAGE_BYTES)
    texts = [row.metrics for row in found.rows if row.metrics is not None]
    texts += last_metrics(session, [row for row in found.rows if row.metrics is None]).values()
    return texts, found.rows[-1].number if found.is_cut or len(found.rows) == limit else None


def metrics_page(session: Session, trial_id: int, attempt: int, after: int, limit: int) -> Portion:
    """Up to `limit` epochs that an attempt reported, after epoch `after`, as many as fit a page's bytes."""
    query = (
        select(Metric.epoch, Metric.attempt, Metric.metrics, Metric.at)
        .where(Metric.trial_id == trial_id, Metric.attempt == attempt, Metric.epoch > after)
        .order_by(Metric.epoch)
        .limit(limit + 1)
    )
    found = portion(session, query, "metrics", ["epoch"], PAGE_BYTES)
    return Portion(found.rows[:limit], is_cut=found.is_cut or len(found.rows) > limit)


def metrics_of(session: Session, trial: Trial, attempt: int | None) -> list[Row[Any]]:
    """What an attempt of the trial reported, by epoch; by default the current attempt."""
    wanted = trial.attempt if attempt is None else attempt
    query = (
        select(Metric.epoch, Metric.attempt, Metric.metrics, Metric.at)
        .where(Metric.trial_id == trial.id, Metric.attempt == wanted)
        .order_by(Metric.epoch)
    )
    found: list[Row[Any]] = [*session.execute(query)]
    return found


def logs_of(session: Session, trial: Trial, attempt: int | None) -> str:
    """What the trial's attempts logged, or one of them."""
    query = select(TrialLog.text).where(TrialLog.trial_id == trial.id).order_by(TrialLog.attempt)
    if attempt is not None:
        query = query.where(TrialLog.attempt == attempt)
    return "".join(text if text.endswith("\n") else text + "\n" for text in session.scalars(query) if text)


_OF_TRIALS = {
    dialect: select(Artifact).where(among).order_by(Artifact.trial_id, Artifact.name)
    for dialect, among in among_ids(table_of(Artifact).c.trial_id).items()
}


def artifacts_of(session: Session, trial_ids: Sequence[int]) -> dict[int, list[Artifact]]:
    """The files of each trial, by name."""
    found: dict[int, list[Artifact]] = defaultdict(list)
    query = _OF_TRIALS[session.get_bind().dialect.name]
    for artifact in session.scalars(query, {"ids": trial_ids}):
        found[artifact.trial_id].append(artifact)
    return found


def find_artifact(session: Session, trial_id: int, name: str, *, pruned_at: str | None = None) -> Artifact:
    """The file of this name. `pruned_at` says when the retention deleted the trial's files.

    Raises:
        NotFound: the trial has none.
    """
    artifact = session.get(Artifact, (trial_id, name)) if len(name) <= 255 else None
    if artifact is None and pruned_at is not None:
        text = (
            f"Expected a file that is kept. The trial's files were deleted at {pruned_at} by this service's retention."
        )
        raise NotFound(text, code="ARTIFACT_NOT_FOUND")
    if artifact is None:
        raise NotFound(f"Expected the name of an artifact. Received: {name[:100]!r}", code="ARTIFACT_NOT_FOUND")
    return artifact


def lineage(session: Session, study_id: int, number: int) -> list[ShownTrial]:
    """Trial `number` of a study and all that it went on from, the first one first."""
    _t = table_of(Trial)
    line = select(_t.c.number, _t.c.parent).where(_t.c.study_id == study_id, _t.c.number == number).cte(recursive=True)
    before = select(_t.c.number, _t.c.parent).join(line, line.c.parent == _t.c.number).where(_t.c.study_id == study_id)
    line = line.union_all(before)
    query = select(*SHOWN).join(line, line.c.number == _t.c.number).where(_t.c.study_id == study_id)
    return [ShownTrial._make(row) for row in session.execute(query.order_by(_t.c.number))]
