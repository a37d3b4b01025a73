"""Whether what a definition says of precision, class weights and determinism fits its data and its limits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from app.domain.class_weights import Classes
from app.domain.datasets import Dataset
from app.domain.effort import MOST_ERRORS
from app.domain.families import Family
from app.domain.study import StudyDefinition
from app.errors import FieldError

CLOCK_METRICS = ("seconds", "train_seconds", "peak_memory_mb")
"""Metrics that are measured, and differ from run to run."""


def saving_problems(definition: StudyDefinition, family: Family, dataset: Dataset | None) -> Iterator[FieldError]:
    """What is wrong, each with its place; `dataset` is None where there is none, or an unknown one."""
    training = definition.training
    if training.deterministic and not family.trained_here:
        yield FieldError(
            ("training", "deterministic"),
            f"Expected false: outside programs train {family.name}, and the service can't pin their numbers.",
        )
    if dataset is None:
        if training.precision != "float32" and definition.dataset is None:
            yield FieldError(
                ("training", "precision"),
                f"Expected float32: nothing of {definition.model.family} is computed in less. "
                f"Received: {training.precision!r}",
            )
        if training.class_weights is not None and definition.dataset is None:
            yield FieldError(("training", "class_weights"), "Expected none without a data set that has classes.")
    elif training.class_weights is not None:
        yield from islice(_class_weights(training.class_weights, dataset), MOST_ERRORS)
    if training.deterministic:
        yield from _clocks(definition)


def saving_warnings(definition: StudyDefinition) -> Iterator[str]:
    """What is allowed, and probably not what was meant."""
    precision, device = definition.training.precision, definition.execution.device
    if precision != "float32" and not device.startswith("gpu"):
        where = "a CPU" if device == "cpu" else "a CPU, which `execution.device` allows,"
        yield f"Training in {precision} on {where} is slower than in float32, and saves no time there."
    if definition.training.deterministic and definition.execution.parallel_trials == "auto":
        yield "A deterministic study with parallel_trials auto proposes trials in generations of 8."


def _class_weights(weights: str | dict[str, float], dataset: Dataset) -> Iterator[FieldError]:
    loc = ("training", "class_weights")
    if dataset.task != "classification":
        yield FieldError(loc, f"Expected none: {dataset.name!r} is regression, which has no classes.")
        return
    if isinstance(weights, str):
        return
    classes = dataset.class_names or tuple(map(str, range(dataset.classes)))
    known, meant = Classes(classes), dict[int, str]()
    for key in weights:
        index = known.index(key)
        if index is None:
            shown = ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")
            yield FieldError((*loc, key), f"Expected a class of {dataset.name!r}, by name or index: {shown}")
        elif index in meant:
            yield FieldError((*loc, key), f"Expected each class once. Received: {meant[index]!r} and {key!r}")
        else:
            meant[index] = key
    if len(meant) == len(classes) and not any(weights.values()):
        yield FieldError(loc, "Expected a class whose weight is above 0. Received: none")


def _clocks(definition: StudyDefinition) -> Iterator[FieldError]:
    """A deterministic study depends on no clock."""
    budget, execution, stopping = definition.budget, definition.execution, definition.training.early_stopping
    limits: tuple[tuple[tuple[str | int, ...], object], ...] = (
        (("budget", "seconds"), budget.seconds),
        (("budget", "device_seconds"), budget.device_seconds),
        (("execution", "trial_timeout_seconds"), execution.trial_timeout_seconds),
    )
    for loc, limit in limits:
        if limit is not None:
            yield FieldError(loc, "Expected none in a deterministic study: the clock would decide about its trials.")
    metrics: list[tuple[tuple[str | int, ...], str]] = [
        *((("objectives", i, "metric"), o.metric) for i, o in enumerate(definition.objectives)),
        *((("constraints", i, "metric"), c.metric) for i, c in enumerate(definition.constraints)),
    ]
    if stopping is not None:
        metrics.append((("training", "early_stopping", "metric"), stopping.metric))
    for loc, metric in metrics:
        if metric in CLOCK_METRICS:
            yield FieldError(
                loc, f"Expected a metric that is computed, in a deterministic study. Received: {metric!r}, measured"
            )
