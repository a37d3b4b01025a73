"""What an outside program tells of a trial, as the outcome that is recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.domain.early_stopping import patience
from app.domain.metrics import values_of
from app.domain.objective import violations
from app.domain.study import StudyDefinition
from app.domain.trial import FailureReason, Outcome, TrialState
from app.errors import FieldError

MOST_METRIC_NAMES = 500
"""Names of metrics that programs may report in all trials of a study: each is a column of its exports."""
ToldState = Literal["COMPLETE", "FAIL", "PRUNED"]
Curve = Sequence[tuple[int, Mapping[str, float]]]
"""The metrics of each epoch that was reported, in order."""


@dataclass(frozen=True, slots=True)
class Told:
    """How a trial went, in the words of the program that trained it. `values` may hold metrics beside objectives."""

    state: ToldState
    values: Mapping[str, float]
    error_code: str | None = None
    error_message: str | None = None


def missing_values(definition: StudyDefinition, told: Told, curve: Curve) -> list[FieldError]:
    """Objectives without a value: each must be told, or reported with the selected epoch."""
    if told.state != "COMPLETE":
        return []
    known = {**_selected(definition, curve)[1], **told.values}
    return [
        FieldError(
            ("values", objective.metric),
            f"Expected a number for the objective {objective.metric!r}, told here or reported with the selected epoch. "
            "Received: none",
        )
        for objective in definition.objectives
        if objective.metric not in known
    ]


def outcome_of(
    definition: StudyDefinition, told: Told, curve: Curve, trial_id: int, token: str, *, seconds: float, attributes: Any
) -> Outcome:
    """The outcome of a trial that ran for `seconds`; an objective that is no finite number makes it FAIL."""
    epoch, selected = _selected(definition, curve)
    metrics = {**selected, **told.values} or None
    values = tuple(known[o.metric] for o in definition.objectives if (known := metrics or {}) and o.metric in known)
    whole = len(values) == len(definition.objectives)
    state, reason, code, message = _end(told, values)
    return Outcome(
        trial_id=trial_id,
        token=token,
        state=state,
        values=values if whole and state is not TrialState.FAIL else None,
        metrics=metrics,
        selected_epoch=epoch,
        epochs=curve[-1][0] + 1 if curve else 0,
        curve=_values_by_epoch(definition, curve),
        violations=violations(definition.constraints, metrics or {}) if state is TrialState.COMPLETE else (),
        reason=reason,
        error_code=code,
        error_message=message,
        log=f"{code}: {message}\n" if code else None,
        device_seconds=seconds,
        system_attributes=attributes,
    )


def timed_out(trial_id: int, token: str, timeout_s: float, *, seconds: float, attributes: Any) -> Outcome:
    """The outcome of a trial that was told after its time limit."""
    message = f"The trial ran past its time limit of {timeout_s:g} seconds."
    return Outcome(
        trial_id=trial_id,
        token=token,
        state=TrialState.FAIL,
        reason=FailureReason.TIMEOUT,
        error_code="TRIAL_TIMEOUT",
        error_message=message,
        log=f"TRIAL_TIMEOUT: {message}\n",
        device_seconds=seconds,
        system_attributes=attributes,
    )


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a trial is to be pruned after its last report, and whether it stops early."""

    prune: bool
    stop: bool


class Watch:
    """The study's early stopping of one trial, epoch by epoch."""

    def __init__(self, definition: StudyDefinition) -> None:
        self._rule = definition.training.early_stopping
        self._patience = None if self._rule is None else patience(self._rule, definition.objectives)

    @property
    def is_over(self) -> bool:
        """Whether it ends the trial."""
        return self._patience is not None and self._patience.is_over

    def see(self, metrics: Mapping[str, float]) -> None:
        """Take in the next epoch."""
        if self._rule is not None and self._patience is not None:
            self._patience.watch(metrics.get(self._rule.metric, math.nan))


def _end(told: Told, values: Sequence[float]) -> tuple[TrialState, FailureReason | None, str | None, str | None]:
    if told.state == "COMPLETE" and not all(map(math.isfinite, values)):
        message = f"Expected finite values. Received: {', '.join(map(str, values))}"
        return TrialState.FAIL, FailureReason.NON_FINITE, "NON_FINITE", message
    if told.state != "FAIL":
        return TrialState(told.state), None, None, None
    code = told.error_code or FailureReason.EXCEPTION.value
    reason = FailureReason(code) if code in FailureReason.__members__ else FailureReason.EXCEPTION
    return TrialState.FAIL, reason, code, told.error_message or "The program told a failure without words."


def _selected(definition: StudyDefinition, curve: Curve) -> tuple[int | None, Mapping[str, float]]:
    """The selected epoch of what was reported, and its metrics."""
    if not curve:
        return None, {}
    objective = definition.objectives[0]
    judged = [(metrics[objective.metric], epoch, metrics) for epoch, metrics in curve if objective.metric in metrics]
    finite = [one for one in judged if math.isfinite(one[0])]
    if definition.training.select_epoch == "last" or not finite:
        return curve[-1]
    _, epoch, metrics = min(finite, key=lambda one: (objective.loss(one[0]), one[1]))
    return epoch, metrics


def _values_by_epoch(definition: StudyDefinition, curve: Curve) -> tuple[tuple[float, ...], ...]:
    """The epochs that told objectives, each with their values in order."""
    found = ((epoch, *values_of(definition.objectives, metrics)) for epoch, metrics in curve)
    return tuple(one for one in found if len(one) > 1)
