"""How far a member of a stack is: its epochs, the selected one, early stopping, and the result at its end."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.domain.early_stopping import Patience, patience
from app.domain.metrics import GAINS
from app.domain.study import EarlyStopping, Objective
from app.domain.trial import FailureReason
from worker.protocol import Member, MemberResult

RESULT_METRICS = ("parameter_count", "train_seconds", "generalization_gap")
"""What comes with a member's result rather than with each epoch."""


@dataclass
class Progress:
    """How far one member is: its epochs, the one selected so far, and how it ended where it did."""

    member: Member
    objectives: Sequence[Objective]
    early_stopping: EarlyStopping | None
    select_last: bool
    epochs: int = 0
    selected_epoch: int | None = None
    selected: dict[str, float] = field(default_factory=dict)
    train_seconds: float = 0.0
    device_seconds: float = 0.0
    failure: str | None = None
    error: Exception | None = None
    _best: float = math.inf
    _patience: Patience | None = field(init=False)

    def __post_init__(self) -> None:
        self._patience = None if self.early_stopping is None else patience(self.early_stopping, self.objectives)

    def record(self, metrics: dict[str, float], *, seconds: float, members: int) -> bool:
        """Take in an epoch that `members` trained in `seconds` together; whether it is the selected one now."""
        epoch, self.epochs = self.epochs, self.epochs + 1
        self.train_seconds += seconds
        self.device_seconds += seconds / members
        if self._patience is not None:
            self._patience.watch(metrics[self._patience.rule.metric])
        objective = next((o for o in self.objectives if o.metric in metrics), None)
        if not self.select_last and objective is not None:
            value = metrics[objective.metric] * _sign(objective.direction == "maximize")
            if not value < self._best:
                return False
            self._best = value
        self.selected_epoch, self.selected = epoch, metrics
        return True

    @property
    def stops_early(self) -> bool:
        """Whether early stopping ends the member now."""
        return self._patience is not None and self._patience.is_over

    def result(self, result_metrics: Mapping[str, float]) -> MemberResult:
        """The member's result, without how it ended; `result_metrics` come with the selected epoch's."""
        metrics = dict(self.selected)
        if metrics:
            metrics.update(result_metrics, train_seconds=self.train_seconds)
            gap = generalization_gap(metrics, self.objectives[0].metric)
            if gap is not None:
                metrics["generalization_gap"] = gap
        return MemberResult(
            member=self.member.member,
            outcome="complete",
            selected_epoch=self.selected_epoch,
            epochs=self.epochs,
            metrics=metrics,
            values=[metrics[o.metric] for o in self.objectives] if metrics else [],
            device_seconds=self.device_seconds,
        )


def generalization_gap(metrics: Mapping[str, float], objective: str) -> float | None:
    """How much worse `objective`'s metric is on validation than on training data; positive means over-fitting.

    For an objective without such a pair (`parameter_count`) the gap of the loss; None where there is no loss either.
    """
    for name in (objective.removeprefix("val_"), "loss"):
        if name in metrics and f"val_{name}" in metrics:
            worse = metrics[f"val_{name}"] - metrics[name]
            return -worse if name in GAINS else worse
    return None


def refused(member: int, message: str) -> MemberResult:
    """The result of a member that can't be trained as it is."""
    return MemberResult(
        member=member, outcome="failed", reason=FailureReason.REFUSED, error_code="REFUSED", message=message
    )


def not_finite(progress: Progress, message: str) -> MemberResult:
    """The result of a member whose metrics are no numbers any more."""
    return MemberResult(
        member=progress.member.member,
        outcome="failed",
        epochs=progress.epochs,
        device_seconds=progress.device_seconds,
        reason=FailureReason.NON_FINITE,
        error_code="NON_FINITE",
        message=message,
    )


def failed(progress: Progress, reason: FailureReason, error: Exception) -> MemberResult:
    """The result of a member that an error ended."""
    return MemberResult(
        member=progress.member.member,
        outcome="failed",
        epochs=progress.epochs,
        device_seconds=progress.device_seconds,
        reason=reason,
        error_code=type(error).__name__,
        message=str(error) or type(error).__name__,
        traceback="".join(traceback.format_exception(error)),
    )


def _sign(maximize: bool) -> int:
    return -1 if maximize else 1
