"""Rules about training: precision, class weights, determinism, files beside models, folds, repeats and heads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

from app.domain.class_weights import Classes
from app.domain.datasets import Dataset
from app.domain.effort import MOST_ERRORS, Meter
from app.domain.families import Family, Scalar
from app.domain.population import SAMPLER
from app.domain.space import Categorical, Float, Int
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


def check_artifacts(definition: StudyDefinition, family: Family) -> list[FieldError]:
    """What is wrong with `execution.artifacts`: files beside a model need a model that is kept."""
    execution = definition.execution
    if execution.artifacts and execution.keep_models == "none":
        message = "Expected keep_models best or all: these files are written beside a kept model. Received: none"
        return [FieldError(("execution", "artifacts"), message)]
    if execution.artifacts and not family.needs_dataset:
        message = f"Expected none: they are written beside a Keras model, and the family {family.name} has none"
        return [FieldError(("execution", "artifacts"), message)]
    return []


def instance_problems(definition: StudyDefinition, family: Family, dataset: Dataset | None) -> Iterator[FieldError]:
    """What is wrong with the folds and repeats of a study; `dataset` is None where it has none, or an unknown one."""
    training = definition.training
    for name, count in (("folds", training.folds), ("repeats", training.repeats)):
        loc = ("training", name)
        if count == 1:
            continue
        if not family.needs_dataset:
            yield FieldError(loc, f"Expected 1: {family.name} trains on no data of ours. Received: {count}")
        elif definition.sampler.name == SAMPLER:
            yield FieldError(loc, f"Expected 1: the members of a population go on from one another. Received: {count}")
    if dataset is None or training.folds == 1 or definition.dataset is None:
        return
    _, _, test = dataset.split(0.0, definition.dataset.test_fraction)
    smallest = (dataset.rows - test) // training.folds
    if smallest < dataset.outputs:
        yield FieldError(
            ("training", "folds"),
            f"Expected folds of at least {dataset.outputs} rows. Received: {training.folds} folds of {smallest} rows",
        )
    spec = definition.dataset
    if spec.grouped and dataset.groups:
        left = dataset.groups - math.ceil(spec.test_fraction * dataset.groups)
        if left < training.folds:
            yield FieldError(
                ("training", "folds"), f"Expected at most as many folds as groups, {left}. Received: {training.folds}"
            )
    given = "validation_fraction" in definition.dataset.model_fields_set
    if (
        given
        and definition.dataset.validation_fraction
        != type(definition.dataset).model_fields["validation_fraction"].default
    ):
        yield FieldError(
            ("dataset", "validation_fraction"),
            "Expected none beside training.folds: each fold is validated on in turn. "
            f"Received: {definition.dataset.validation_fraction:g}",
        )


def head_problems(definition: StudyDefinition, meter: Meter) -> Iterator[FieldError]:
    """Heads that divide the width in no trial; `definition` has all defaults."""
    shares = _divides(definition, meter)
    if shares and not any(shares):
        heads, width = (definition.hyperparameters[name] for name in ("heads", "width"))
        yield FieldError(
            ("hyperparameters", "heads"),
            f"Expected heads that divide the width. Received: heads of {_told(heads)}, a width of {_told(width)}",
        )


def head_warnings(definition: StudyDefinition, meter: Meter) -> Iterator[str]:
    """Heads that divide the width in some trials alone: the others are refused before they train."""
    shares = _divides(definition, meter)
    if shares and any(shares) and not all(shares):
        yield (
            f"In {len(shares) - sum(shares)} of {len(shares)} combinations heads don't divide the width: such trials "
            "fail as REFUSED. Let every width be a multiple of every number of heads."
        )


def _divides(definition: StudyDefinition, meter: Meter) -> list[bool]:
    """Whether heads divide the width, for each combination; empty for families without heads."""
    found = [definition.hyperparameters.get(name) for name in ("heads", "width")]
    heads, widths = (sorted(_whole_numbers(value)) for value in found)
    meter.spend(len(heads) * len(widths), ("hyperparameters", "heads"))
    return [width % head == 0 for head in heads for width in widths]


def _whole_numbers(value: Float | Int | Categorical | Scalar | None) -> Iterator[int]:
    if isinstance(value, Int):
        yield from range(value.low, value.high + 1, value.step)
    elif isinstance(value, Categorical):
        yield from (int(choice) for choice in value.choices if not isinstance(choice, str))
    elif isinstance(value, int | float):
        yield int(value)


def _told(value: Float | Int | Categorical | Scalar) -> str:
    if isinstance(value, Float | Int):
        return f"{value.low:g} to {value.high:g}"
    if isinstance(value, Categorical):
        return " or ".join(map(str, value.choices))
    return str(value)
