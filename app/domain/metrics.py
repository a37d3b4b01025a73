"""Which metrics a family reports, by the task of its data set."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.families import Family, Task

TASK_METRIC: dict[Task, str] = {"classification": "accuracy", "regression": "mae"}
"""The metric that each task reports beside the loss."""
GAINS = ("accuracy", "val_accuracy")
"""Metrics of which more is better; less is better of all others that are known."""


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


def reported_metrics(family: Family, task: Task | None) -> ReportedMetrics:
    """What a trial of the family reports on data of this task; without a data set the closed-form `value` alone."""
    if not family.trained_here:
        return ReportedMetrics((), (), (), others=True)
    if task is None or not family.needs_dataset:
        return ReportedMetrics(("value",), (), ())
    metric = TASK_METRIC[task]
    paired = ("loss", "val_loss", metric, f"val_{metric}")
    return ReportedMetrics(
        (*paired, "learning_rate", "seconds"), ("parameter_count", "train_seconds", "generalization_gap"), paired
    )
