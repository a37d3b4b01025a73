"""Which metrics a family reports, by the task of its data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.domain.families import Family, Task
from app.domain.study import Objective

TASK_METRIC: dict[Task, str] = {"classification": "accuracy", "regression": "mae"}
"""The metric that each task reports beside the loss."""
GAINS = ("accuracy", "val_accuracy")
"""Metrics of which more is better; less is better of all others that are known."""
GAP = "generalization_gap"
SPREAD = ("loss", *TASK_METRIC.values())
"""Metrics, each with its `val_` side, whose standard deviation over folds and repeats comes with the result."""


@dataclass(frozen=True, slots=True)
class ReportedMetrics:
    """Metrics of every epoch, those that come with the result, and those that have a training and a validation side.

    `others` says that there may be any others: outside programs report what they like.
    """

    by_epoch: tuple[str, ...]
    with_result: tuple[str, ...]
    paired: tuple[str, ...]
    others: bool = False

    def with_epoch(self, metric: str) -> bool:
        """Whether a metric may come with each epoch."""
        return self.others or metric in self.by_epoch

    def with_trial(self, metric: str) -> bool:
        """Whether a metric may be part of a trial's result."""
        return self.others or metric in self.all

    @property
    def all(self) -> tuple[str, ...]:
        """Every metric of a trial's result."""
        return self.by_epoch + self.with_result


def values_of(objectives: Sequence[Objective], metrics: Mapping[str, float]) -> list[float]:
    """The objectives' values among the metrics of an epoch, in order, up to the first that isn't there."""
    values: list[float] = []
    for objective in objectives:
        if objective.metric not in metrics:
            break
        values.append(metrics[objective.metric])
    return values


def reported_metrics(family: Family, task: Task | None, instances: int = 1) -> ReportedMetrics:
    """What a trial of the family reports on data of this task; without a data set the closed-form `value` alone.

    With several `instances` (folds and repeats) the result has the means over them, and standard deviations.
    """
    if not family.trained_here:
        return ReportedMetrics((), (), (), others=True)
    if task is None or not family.needs_dataset:
        return ReportedMetrics(("value",), (), ())
    metric = TASK_METRIC[task]
    own = [name for m in family.metrics for name in (m.name, f"val_{m.name}")]
    paired = ("loss", "val_loss", metric, f"val_{metric}", *own)
    by_epoch = (*paired, "learning_rate", "seconds")
    with_result = ("parameter_count", "train_seconds", "peak_memory_mb", GAP)
    if instances == 1:
        return ReportedMetrics(by_epoch, with_result, paired)
    return ReportedMetrics((*by_epoch, "instance"), (*with_result, *spreads(paired)), paired)


def spreads(names: Iterable[str]) -> list[str]:
    """What comes with the result of several instances for these metrics: standard deviations, of some of them."""
    return [f"{name}_std" for name in names if name.removeprefix("val_") in SPREAD]
