"""How far a member of a stack is: its epochs, the selected one, early stopping, and the result at its end."""

from __future__ import annotations

import math
import re
import statistics
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.early_stopping import Patience, patience
from app.domain.metrics import GAINS, SPREAD
from app.domain.study import EarlyStopping, Objective
from app.domain.trial import FailureReason
from worker.trainer.protocol import Member, MemberResult
from worker.trainer.trainable import Explained

RESULT_METRICS = ("parameter_count", "train_seconds", "peak_memory_mb", "generalization_gap")
"""What comes with a member's result rather than with each epoch."""
MOST_CHARACTERS = 800
"""Of what an error says that is told of a trial; all of it is in the trial's log."""
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""What Keras writes into its messages for terminals."""
STATE = (
    "epochs", "selected_epoch", "selected", "train_seconds", "device_seconds", "instance", "instance_epochs",
    "instance_results", "model_epoch", "history", "_best", "_best_instance",
)  # fmt: skip
"""What of a progress is kept in a snapshot; the rest follows from the trial, or ends it."""


@dataclass
class Progress:
    """How far one member is: its epochs, the one selected so far, and how it ended where it did.

    A member of several `instances` (folds and repeats) trains one after the other: `epochs` counts through all of them,
    the selected epoch is that of the present one, counted within it. `model_epoch` is the epoch of the model that is
    kept: with several instances of the best one that is through.
    """

    member: Member
    objectives: Sequence[Objective]
    early_stopping: EarlyStopping | None
    select_last: bool
    instances: int = 1
    gains: Sequence[str] = ()
    epochs: int = 0
    selected_epoch: int | None = None
    selected: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    """The metrics of every epoch so far."""
    train_seconds: float = 0.0
    device_seconds: float = 0.0
    failure: str | None = None
    error: Exception | None = None
    instance: int = 0
    instance_epochs: int = 0
    instance_results: list[dict[str, float]] = field(default_factory=list)
    model_epoch: int | None = None
    _best: float = math.inf
    _best_instance: float = math.inf
    _patience: Patience | None = field(init=False)

    def __post_init__(self) -> None:
        self._patience = (
            None if self.early_stopping is None else patience(self.early_stopping, self.objectives, self.gains)
        )

    def record(self, metrics: dict[str, float], *, seconds: float, members: int) -> bool:
        """Take in an epoch that `members` trained in `seconds` together; whether it is the selected one now."""
        epoch, self.instance_epochs, self.epochs = self.instance_epochs, self.instance_epochs + 1, self.epochs + 1
        self.train_seconds += seconds
        self.device_seconds += seconds / members
        self.history.append(metrics)
        if self._patience is not None:
            self._patience.watch(metrics[self._patience.rule.metric])
        objective = next((o for o in self.objectives if o.metric in metrics), None)
        if not self.select_last and objective is not None:
            value = objective.loss(metrics[objective.metric])
            if not value < self._best:
                return False
            self._best = value
        self.selected_epoch, self.selected = epoch, metrics
        if self.instances == 1:
            self.model_epoch = epoch
        return True

    def is_through(self, epochs: int) -> bool:
        """Whether nothing is left to train, where `epochs` are to be trained at most."""
        if self.instance == self.instances:
            return True
        return self.instance == self.instances - 1 and self.instance_is_through(epochs)

    def instance_is_through(self, epochs: int) -> bool:
        """Whether the present instance is: all its epochs, or early stopping."""
        return self.instance_epochs >= epochs or (self._patience is not None and self._patience.is_over)

    def instance_result(self, result_metrics: Mapping[str, float]) -> dict[str, float]:
        """The metrics of the present instance's selected epoch, with what comes with a result."""
        return {**self.selected, **self.with_result(self.selected, result_metrics)} if self.selected else {}

    def close_instance(self, result_metrics: Mapping[str, float]) -> bool:
        """Go on to the next instance; whether the one that is through is the best so far."""
        metrics, epoch = self.instance_result(result_metrics), self.selected_epoch
        self.instance_results.append(metrics)
        self.instance, self.instance_epochs = self.instance + 1, 0
        self.selected_epoch, self.selected, self._best = None, {}, math.inf
        self.__post_init__()
        # A standard deviation over instances is of none of them.
        objective = next((o for o in self.objectives if o.metric in metrics), None)
        if objective is None and not metrics:
            return False
        cost = 0.0 if objective is None else objective.loss(metrics[objective.metric])
        if not cost < self._best_instance:
            return False
        self._best_instance, self.model_epoch = cost, epoch
        return True

    def state(self) -> dict[str, Any]:
        """What a snapshot keeps of it, as JSON values."""
        stopping = None if self._patience is None else self._patience.state()
        # Lists grow while a snapshot is written.
        grown = {"instance_results": list(self.instance_results), "history": list(self.history)}
        return {name: getattr(self, name) for name in STATE} | grown | {"stopping": stopping}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as far as the progress of which `state` was kept.

        Raises:
            KeyError: something is missing; nothing was changed.
        """
        stopping = state["stopping"]
        for name, value in {name: state[name] for name in STATE}.items():
            setattr(self, name, value)
        if self._patience is not None and stopping is not None:
            self._patience.restore(stopping)

    def with_result(self, metrics: Mapping[str, float], result_metrics: Mapping[str, float]) -> dict[str, float]:
        """What a result adds to the `metrics` of an epoch."""
        found = {**result_metrics, "train_seconds": self.train_seconds}
        gap = generalization_gap(metrics, self.objectives[0].metric, self.gains)
        return found if gap is None else {**found, "generalization_gap": gap}

    def _over_instances(self) -> dict[str, float]:
        """The means over the instances that are through."""
        results = [result for result in self.instance_results if result]
        return {**over_instances(results), "train_seconds": self.train_seconds} if results else {}

    def result(self, result_metrics: Mapping[str, float]) -> MemberResult:
        """The member's result, without how it ended; `result_metrics` come with the selected epoch's."""
        metrics = self.instance_result(result_metrics) if self.instances == 1 else self._over_instances()
        return MemberResult(
            member=self.member.member,
            outcome="complete",
            selected_epoch=self.selected_epoch,
            epochs=self.epochs,
            metrics=metrics,
            values=[metrics[o.metric] for o in self.objectives] if metrics else [],
            device_seconds=self.device_seconds,
        )


def over_instances(results: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of metrics over instances; of losses and scores the sample standard deviation too, as `{metric}_std`."""
    names = [name for name in results[0] if all(name in result for result in results)] if results else []
    found: dict[str, float] = {}
    for name in names:
        values = [result[name] for result in results]
        found[name] = statistics.fmean(values)
        if name.removeprefix("val_") in SPREAD:
            found[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return found


def generalization_gap(metrics: Mapping[str, float], objective: str, gains: Sequence[str] = ()) -> float | None:
    """How much worse `objective`'s metric is on validation than on training data; positive means over-fitting.

    `gains` are metrics of a family's own that grow as a model gets better.
    For an objective without such a pair (`parameter_count`) the gap of the loss; None where there is no loss either.
    """
    for name in (objective.removeprefix("val_"), "loss"):
        if name in metrics and f"val_{name}" in metrics:
            worse = metrics[f"val_{name}"] - metrics[name]
            return -worse if name in (*GAINS, *gains) else worse
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
        error_code=error.code if isinstance(error, Explained) else type(error).__name__,
        message=in_brief(error),
        traceback="".join(traceback.format_exception(error)),
    )


def tried_elsewhere(progress: Progress) -> MemberResult:
    """The result of a member that is given back."""
    return MemberResult(
        member=progress.member.member,
        outcome="stopped",
        stop_reason="FAULTED",
        epochs=progress.epochs,
        device_seconds=progress.device_seconds,
    )


def in_brief(error: Exception) -> str:
    """What an error says, without colours and empty lines, and no more than a person reads."""
    lines = (line.strip() for line in COLOURS.sub("", str(error)).splitlines())
    text = "\n".join(filter(None, lines)) or type(error).__name__
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
