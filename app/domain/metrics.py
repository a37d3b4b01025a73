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
    """Metrics of every epoch, those that come with the result, and those that have a training and a validation side."""

    by_epoch: tuple[str, ...]
    with_result: tuple[str, ...]
    paired: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Every metric of a trial's result."""
        return self.by_epoch + self.with_result


def reported_metrics(family: Family, task: Task | None) -> ReportedMetrics:
    """What a trial of the family reports on data of this task; without a data set the closed-form `value` alone."""
    if task is None or not family.needs_dataset:
        return ReportedMetrics(("value",), (), ())
    metric = TASK_METRIC[task]
    paired = ("loss", "val_loss", metric, f"val_{metric}")
    return ReportedMetrics(
        (*paired, "learning_rate", "seconds"),
        ("parameter_count", "train_seconds", "peak_memory_mb", "generalization_gap"),
        paired,
    )
