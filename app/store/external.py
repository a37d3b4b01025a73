"""Trials that outside programs train: the same leases and fences, one trial and one short transaction at a time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from app.domain.families import Scalar
from app.domain.json import decode_number, loads
from app.domain.trial import FailureReason, Outcome, TrialState
from app.errors import Invalid, LeaseLost, StateConflict
from app.store import leases, optuna, recording
from app.store.engine import now
from app.store.fence import held_by, was_held_by
from app.store.recording import Report
from app.store.tables import Metric, Study, StudyAttribute, Trial, table_of

_t, _m, _a = table_of(Trial), table_of(Metric), table_of(StudyAttribute)
SHOWN_NAMES = 5
"""Names of metrics that a refusal names."""
_EPOCHS = (
    select(_m.c.epoch, _m.c.metrics)
    .join(_t, (_t.c.id == _m.c.trial_id) & (_t.c.attempt == _m.c.attempt))
    .order_by(_m.c.epoch)
)

LAST_EPOCH = 2**62
"""Beyond all epochs."""
METRIC = "metric"
"""The scope of the study attributes that name what programs have reported: Optuna and its users see others alone."""

Curve = list[tuple[int, dict[str, float]]]
"""The metrics of each epoch that an attempt reported, in order."""


@dataclass(frozen=True, slots=True)
class HeldTrial:
    """A trial whose lease a program holds, locked. Times are Unix seconds, `at` is the database's now."""

    trial_id: int
    study_id: int
    number: int
    attempt: int
    token: str
    started_at: float
    epochs: int
    lease_seconds: float
    at: float
    sampled: dict[str, Scalar]
    attributes: dict[str, Any]

    @property
    def lease(self) -> leases.Lease:
        """What its fenced writes carry."""
        return self.trial_id, self.token

    def is_overdue(self, timeout_s: float | None) -> bool:
        """Whether the attempt has run for longer than `timeout_s`."""
        return timeout_s is not None and self.at >= self.started_at + timeout_s


def held_trial(session: Session, study_id: int, number: int, token: str) -> HeldTrial:
    """The running trial that `token` is the lease of, its row locked.

    Raises:
        LeaseLost: the token is not (or no longer) that of the trial.
    """
    query = select(_t.c.id).where(_t.c.study_id == study_id, _t.c.number == number, held_by(token))
    trial_id = session.connection().execute(query).scalar_one_or_none()
    rows = [] if trial_id is None else leases.held(session, [(trial_id, token)])
    if not rows or rows[0].state != TrialState.RUNNING:
        raise lost(number)
    row = rows[0]
    columns = [_t.c[name] for name in ("epochs", "lease_seconds", "sampled", "system_attributes")]
    more = session.connection().execute(select(*columns).where(_t.c.id == row.id)).one()
    return HeldTrial(
        row.id,
        study_id,
        number,
        row.attempt,
        token,
        row.started_at,
        more.epochs,
        more.lease_seconds or 0.0,
        row.at,
        loads(more.sampled or "{}"),
        loads(more.system_attributes),
    )


def lost(number: int) -> LeaseLost:
    """The refusal of a write without a lease."""
    return LeaseLost(
        f"Expected the lease token of trial {number}. Received one that does not hold it (any longer): the lease "
        "expired, or the trial is over."
    )


def renew(session: Session, trial: HeldTrial) -> float:
    """Renew a held lease for as long as it was asked for; when it expires now."""
    leases.renew(session, [trial.lease], trial.lease_seconds)
    return trial.at + trial.lease_seconds


def is_halted(session: Session, study_id: int) -> bool:
    """Whether a limit or the target of the study was met: its trials are to stop."""
    return session.scalar(select(Study.halt_reason).where(Study.id == study_id)) is not None


def time_out(session: Session, trial: HeldTrial, timeout_s: float) -> None:
    """End a held trial as FAIL, `TIMEOUT`."""
    message = f"The trial ran past its time limit of {timeout_s:g} seconds."
    leases.fail(session, trial.study_id, [trial.lease], FailureReason.TIMEOUT, "TRIAL_TIMEOUT", message)


def report(session: Session, study: Study, trial: HeldTrial, epoch: int, metrics: dict[str, float]) -> bool:
    """Write the metrics of an epoch and renew the lease; False where the very same ones were there already.

    Raises:
        StateConflict: the epoch has other metrics, or a later one was reported before.
    """
    if epoch < trial.epochs:
        known = dict(curve(session, trial.trial_id, epoch - 1, epoch)).get(epoch)
        if known is None or not _same(known, metrics):
            expected = f"{trial.epochs} or later" if known is None else f"the metrics reported before, {known}"
            raise StateConflict(f"Expected for epoch {epoch}: {expected}. Received: {metrics}")
        renew(session, trial)
        return False
    told = Report(trial.trial_id, trial.token, trial.number, trial.attempt, epoch, metrics)
    recording.record(session, study.id, study.public_id, [told], trial.lease_seconds)
    return True


def name_metrics(session: Session, study_id: int, names: Collection[str], most: int) -> set[str]:
    """Note which metrics programs report of a study; all names that it has now.

    Raises:
        Invalid: with these it has more than `most`.
    """
    of_study = (_a.c.study_id == study_id, _a.c.scope == METRIC)
    known = set(session.connection().execute(select(_a.c.key).where(*of_study)).scalars())
    new = sorted(set(names) - known)
    if not new:
        return known
    if len(known) + len(new) > most:
        raise Invalid(
            f"Expected at most {most:,} names of metrics in all trials of a study. Received {len(known):,} in earlier "
            f"reports, and as new ones: {', '.join(new[:SHOWN_NAMES])}. Metrics of many parts belong into a few sums."
        )
    optuna.claim_study_attributes(session, study_id, METRIC, new)
    return known | set(new)


def _same(one: dict[str, float], other: dict[str, float]) -> bool:
    return {k: repr(float(v)) for k, v in one.items()} == {k: repr(float(v)) for k, v in other.items()}


def curve(session: Session, trial_id: int, after: int = -1, up_to: int = LAST_EPOCH) -> Curve:
    """What the present attempt of a trial has reported, after epoch `after` and up to `up_to`."""
    within = (_m.c.trial_id == trial_id, _m.c.epoch > after, _m.c.epoch <= up_to)
    rows = session.connection().execute(_EPOCHS.where(_t.c.id == trial_id, *within))
    return [(row.epoch, {name: decode_number(value) for name, value in loads(row.metrics).items()}) for row in rows]


def tell(session: Session, study_id: int, outcome: Outcome) -> bool:
    """Record how a trial ended; False where its lease is not the teller's (any longer).

    The same outcome may be told again.

    Raises:
        StateConflict: the lease's holder has told another outcome before.
    """
    recorded = recording.finish(session, study_id, [outcome], [], 0.0)
    if outcome.trial_id not in recorded.trial_ids:
        return False
    stored = session.connection().execute(select(_t.c.objective_values).where(_t.c.id == outcome.trial_id)).scalar()
    before = None if stored is None else [repr(decode_number(v)) for v in loads(stored)]
    if before != (None if outcome.values is None else [repr(float(v)) for v in outcome.values]):
        raise StateConflict(f"Expected the values told before, {stored}. Received: {list(outcome.values or ())}")
    return True


def told_trial(session: Session, study_id: int, number: int, token: str) -> Row[Any] | None:
    """A trial that is held by `token`, or that ended under it: id, attempt, state, started_at, attributes, `at`."""
    columns = [_t.c[n] for n in ("id", "attempt", "state", "started_at", "system_attributes")]
    query = select(*columns, now().label("at")).where(
        _t.c.study_id == study_id,
        _t.c.number == number,
        was_held_by(token),
    )
    rows: list[Row[Any]] = [*session.connection().execute(query)]
    return rows[0] if rows else None
