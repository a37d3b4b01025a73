"""What pydantic can't see in a definition: whether family, data, space, metrics and limits fit together.

`check_definition` finds all problems at once; each names the place it is about. Samplers and pruners are checked where
Optuna is at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from app.domain.checks.data import SAMPLES_OF, frame_problems, grouping_problems, pinned, takes, upload_problems
from app.domain.checks.layers import layer_problems, size_problems
from app.domain.checks.limits import weight_problems
from app.domain.checks.space import check_hyperparameters, unused_hyperparameters
from app.domain.checks.training import (
    check_artifacts,
    head_problems,
    head_warnings,
    instance_problems,
    saving_problems,
    saving_warnings,
)
from app.domain.datasets import BUILT_IN as DATASETS
from app.domain.datasets import Dataset
from app.domain.effort import Meter
from app.domain.families import FUNCTION, Family, Scalar
from app.domain.memory import MemoryEstimate, memory_estimate
from app.domain.metrics import GAINS, ReportedMetrics, reported_metrics
from app.domain.population import SAMPLER
from app.domain.registry import Families
from app.domain.size import parameter_estimate
from app.domain.study import EarlyStopping, StudyDefinition
from app.errors import FieldError


@dataclass(frozen=True, slots=True)
class Limits:
    """The operator's limits on one study."""

    max_trials: int = 100_000
    max_epochs: int = 10_000
    max_parallel_trials: int = 1_000
    max_searched: int = 200
    max_model_parameters: int = 100_000_000
    max_definition_bytes: int = 500_000


@dataclass(frozen=True, slots=True)
class Checked:
    """A definition with all defaults filled in, what is wrong with it, and what is worth a warning."""

    definition: StudyDefinition
    errors: tuple[FieldError, ...]
    warnings: tuple[str, ...] = ()
    structural: tuple[str, ...] = ()
    runtime: tuple[str, ...] = ()
    stackable: bool = False
    memory: MemoryEstimate | None = None
    family: Family | None = None
    """With what its list of layers declares; None where it isn't known."""


LISTED_INPUTS = ("vector", "image")
"""Kinds of samples that lists of layers take: what prepares texts and recordings has hyperparameters of its own."""


@dataclass(slots=True)
class _Findings:
    errors: list[FieldError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    gains: tuple[str, ...] = GAINS
    """Metrics of which more is better."""

    def refuse(self, loc: tuple[str | int, ...], message: str) -> None:
        self.errors.append(FieldError(loc, message))


def check_definition(
    definition: StudyDefinition,
    limits: Limits,
    datasets: Mapping[str, Dataset] = DATASETS,
    *,
    families: Families,
    meter: Meter | None = None,
) -> Checked:
    """`definition` with all defaults, all problems of it, and warnings; without problems it can be run.

    `datasets` are those that it may name, by name and by id; `families` those that are known; the `meter` is what
    checking may cost.

    Raises:
        TooExpensive: it costs more.
        Abandoned: nobody waits for the result.
    """
    meter = meter or Meter()
    found = _Findings()
    heavy = weight_problems(definition, limits.max_definition_bytes)
    if heavy:
        return Checked(definition, tuple(heavy))  # what is this large is looked at no further
    _check_limits(definition, limits, found)
    definition = _with_input(definition, datasets, families)
    family = families.of(definition.model, definition.hyperparameters)
    if family is None:
        found.errors.append(_unknown_family(definition, families))
        return Checked(definition, tuple(found.errors))
    of_layers = layer_problems(definition, from_layers=family.from_layers)
    if of_layers:
        found.errors += of_layers
        return Checked(definition, tuple(found.errors), family=family)
    found.errors += check_artifacts(definition, family)
    dataset = _check_dataset(definition, family, datasets, found)
    filled = fill_defaults(pinned(definition, dataset), family)
    if len(definition.searched) <= limits.max_searched:
        found.errors += check_hyperparameters(definition, filled, family)
    if dataset is not None:
        _check_task(definition, dataset, found)
        found.errors += frame_problems(filled, dataset)
    found.errors += saving_problems(definition, family, dataset)
    if dataset is not None or not family.needs_dataset:
        found.gains += family.gains
        task, instances = dataset.task if dataset else None, definition.training.instances
        _check_metrics(filled, reported_metrics(family, task, instances), found)
    found.errors += instance_problems(definition, family, dataset)
    if dataset is not None and not found.errors and family.from_layers:
        found.errors += size_problems(filled, dataset, limits.max_model_parameters, meter)
    elif dataset is not None and not found.errors:
        found.errors += head_problems(filled, meter)
        _check_size(filled, dataset, limits, found)
    if not found.errors:
        found.warnings += unused_hyperparameters(definition, family)
        found.warnings += saving_warnings(definition)
        found.warnings += head_warnings(filled, meter)
        if not definition.searched:
            found.warnings.append("No hyperparameter is searched: every trial trains the same model.")
    names = filled.hyperparameters
    structural = tuple(n for n in names if (h := family.declared(n)) is not None and h.structural)
    return Checked(
        definition=filled,
        errors=tuple(found.errors),
        warnings=tuple(found.warnings),
        structural=structural,
        runtime=tuple(n for n in names if n not in structural),
        stackable=family.stackable,
        memory=_memory(filled, dataset) if not found.errors else None,
        family=family,
    )


def _unknown_family(definition: StudyDefinition, families: Families) -> FieldError:
    model = definition.model
    versions = families.versions(model.family)
    if versions:
        wanted = ", ".join(versions)
        return FieldError(
            ("model", "version"), f"Expected one of {wanted} of {model.family}. Received: {model.version!r}"
        )
    known = ", ".join(sorted(families.names))
    return FieldError(("model", "family"), f"Expected one of {known}. Received: {model.family!r}")


def _with_input(definition: StudyDefinition, datasets: Mapping[str, Dataset], families: Families) -> StudyDefinition:
    """The definition with its family's version, and with what its layers take where that is the data's own kind."""
    model, spec = definition.model, definition.dataset
    family = families.get(model.family, model.version)
    if family is None:
        return definition
    dataset = None if spec is None else datasets.get(spec.name)
    changes: dict[str, object] = {"version": family.version}
    if family.from_layers and model.input is None and dataset is not None and dataset.input_kind in LISTED_INPUTS:
        changes["input"] = dataset.input_kind
    return definition.model_copy(update={"model": model.model_copy(update=changes)})


def _memory(definition: StudyDefinition, dataset: Dataset | None) -> MemoryEstimate | None:
    if dataset is None:
        return None
    return memory_estimate(definition.model.family, definition.hyperparameters, dataset)


def fill_defaults(definition: StudyDefinition, family: Family) -> StudyDefinition:
    """`definition` with the family's defaults for what was left out, and fixed numbers of the declared kind."""
    values: dict[str, object] = dict(definition.hyperparameters)
    for name, value in definition.fixed.items():
        values[name] = _of_kind(family, name, value)
    for name, default in family.defaults().items():
        values.setdefault(name, default)
    training = definition.training
    selects_last = family is FUNCTION or definition.sampler.name == SAMPLER
    if selects_last and "select_epoch" not in training.model_fields_set:
        training = training.model_copy(update={"select_epoch": "last"})
    stopping = training.early_stopping
    if stopping is not None and not family.needs_dataset and "metric" not in stopping.model_fields_set:
        metric = "value" if family.trained_here else definition.objectives[0].metric
        training = training.model_copy(update={"early_stopping": stopping.model_copy(update={"metric": metric})})
    return definition.model_copy(update={"hyperparameters": values, "training": training})


def _of_kind(family: Family, name: str, value: Scalar) -> Scalar:
    declared = family.declared(name)
    if declared is None or isinstance(value, bool | str):
        return value
    if declared.kind == "int" and float(value).is_integer():
        return int(value)
    return float(value) if declared.kind == "float" else value


def _check_limits(definition: StudyDefinition, limits: Limits, found: _Findings) -> None:
    budget = definition.budget
    if budget.is_empty:
        found.refuse(
            ("budget",),
            "Expected at least one of trials, seconds, device_seconds, no_improvement_trials. Received: none",
        )
    if budget.no_improvement_trials is not None and len(definition.objectives) > 1:
        found.refuse(
            ("budget", "no_improvement_trials"), "Expected none with several objectives: there is no best trial."
        )
    bounds: tuple[tuple[tuple[str | int, ...], float | None, int], ...] = (
        (("budget", "trials"), budget.trials, limits.max_trials),
        (("training", "epochs"), definition.training.epochs, limits.max_epochs),
        (("execution", "parallel_trials"), definition.max_parallel, limits.max_parallel_trials),
    )
    for loc, value, limit in bounds:
        if value is not None and value > limit:
            found.refuse(loc, f"Expected at most {limit}, this service's limit. Received: {value}")
    if len(definition.searched) > limits.max_searched:
        found.refuse(
            ("hyperparameters",),
            f"Expected at most {limits.max_searched} searched ones, this service's limit. "
            f"Received: {len(definition.searched)}",
        )


def _check_dataset(
    definition: StudyDefinition, family: Family, datasets: Mapping[str, Dataset], found: _Findings
) -> Dataset | None:
    spec = definition.dataset
    if not family.needs_dataset:
        if spec is not None:
            found.refuse(("dataset",), f"Expected no data set: {family.name} trains on none. Received: {spec.name!r}")
        return None
    if spec is None:
        found.refuse(("dataset",), f"Expected a data set: {family.name} trains on data. Received: none")
        return None
    dataset = datasets.get(spec.name if spec.id is None else spec.id)
    if dataset is None:
        known = ", ".join(sorted({dataset.name for dataset in datasets.values()}))
        place, received = ("name", spec.name) if spec.id is None else ("id", spec.id)
        found.refuse(("dataset", place), f"Expected one of {known}, or an upload. Received: {received!r}")
        return None
    found.errors += upload_problems(spec, dataset)
    if not takes(family.input_kind, dataset.input_kind):
        found.refuse(
            ("dataset", "name"),
            f"Expected {SAMPLES_OF[family.input_kind]} for {family.name}. "
            f"Received: {spec.name!r}, of {SAMPLES_OF[dataset.input_kind]}",
        )
    elif dataset.task not in family.tasks:
        tasks = " or ".join(family.tasks)
        found.refuse(
            ("dataset", "name"), f"Expected data for {tasks} for {family.name}. Received: {spec.name!r}, {dataset.task}"
        )
    kept = spec.validation_fraction + spec.test_fraction
    if kept >= 1:
        found.refuse(
            ("dataset", "validation_fraction"),
            f"Expected validation_fraction + test_fraction below 1. Received: {kept:g}",
        )
        return dataset
    if spec.grouped:
        found.errors += grouping_problems(spec, dataset)
    else:
        _check_split(dataset, spec.validation_fraction, spec.test_fraction, found)
    return dataset


def _check_split(dataset: Dataset, validation_fraction: float, test_fraction: float, found: _Findings) -> None:
    training, validation, test = dataset.split(validation_fraction, test_fraction)
    fewest = dataset.outputs
    parts = [("validation_fraction", "validation", validation), ("validation_fraction", "training", training)]
    if test_fraction > 0:
        parts.append(("test_fraction", "test", test))
    for name, part, rows in parts:
        if rows < fewest:
            found.refuse(
                ("dataset", name),
                f"Expected at least {fewest} rows in the {part} part of {dataset.name!r}. "
                f"Received fractions that leave {rows}",
            )


def _check_task(definition: StudyDefinition, dataset: Dataset, found: _Findings) -> None:
    smoothing = definition.hyperparameters.get("label_smoothing", 0)
    if dataset.task == "regression" and smoothing != 0:
        found.refuse(
            ("hyperparameters", "label_smoothing"),
            f"Expected none, or 0: {dataset.name!r} is regression, which has no labels to smooth.",
        )


def _check_metrics(definition: StudyDefinition, reported: ReportedMetrics, found: _Findings) -> None:
    objectives = definition.objectives
    for i, objective in enumerate(objectives):
        loc = ("objectives", i, "metric")
        if not reported.with_trial(objective.metric):
            found.refuse(loc, _one_of(reported.all, objective.metric))
        elif any(other.metric == objective.metric for other in objectives[:i]):
            found.refuse(loc, f"Expected objectives that differ. Received {objective.metric!r} twice")
        elif objective.metric in (*reported.paired, "value"):
            _warn_of_direction(objective.metric, objective.direction, found)
        if objective.target is not None and len(objectives) > 1:
            found.refuse(("objectives", i, "target"), "Expected no target with several objectives.")
    gap_loc = next(
        (("objectives", i, "metric") for i, o in enumerate(objectives) if o.metric == "generalization_gap"), None
    )
    if gap_loc is None and any(c.metric == "generalization_gap" for c in definition.constraints):
        gap_loc = ("objectives", 0, "metric")
    first = objectives[0].metric
    if gap_loc is not None and first in reported.all and first not in reported.paired:
        found.refuse(
            gap_loc,
            "generalization_gap compares the first objective's metric on validation and training data. "
            f"Expected a first objective among {', '.join(reported.paired)}. Received: {first!r}",
        )
    for i, constraint in enumerate(definition.constraints):
        if not reported.with_trial(constraint.metric):
            found.refuse(("constraints", i, "metric"), _one_of(reported.all, constraint.metric))
    found.errors += _constraint_bounds(definition)
    _check_early_stopping(definition.training.early_stopping, reported, found)


def _warn_of_direction(metric: str, direction: str, found: _Findings) -> None:
    usual = "maximize" if metric in found.gains else "minimize"
    if direction != usual and metric != "value":
        found.warnings.append(f"The objective {metric!r} is to be {direction}d, usually it is {usual}d.")


def _constraint_bounds(definition: StudyDefinition) -> Iterator[FieldError]:
    for i, constraint in enumerate(definition.constraints):
        low, high = constraint.min, constraint.max
        if low is None and high is None:
            yield FieldError(("constraints", i), "Expected min, max or both. Received: neither")
        elif low is not None and high is not None and low > high:
            yield FieldError(("constraints", i, "min"), f"Expected min <= max. Received: min={low:g}, max={high:g}")


def _check_early_stopping(stopping: EarlyStopping | None, reported: ReportedMetrics, found: _Findings) -> None:
    if stopping is not None and not reported.with_epoch(stopping.metric):
        found.refuse(("training", "early_stopping", "metric"), _one_of(reported.by_epoch, stopping.metric))


def _one_of(names: tuple[str, ...], received: str) -> str:
    return f"Expected one of {', '.join(names)}. Received: {received!r}"


def _check_size(definition: StudyDefinition, dataset: Dataset, limits: Limits, found: _Findings) -> None:
    size = parameter_estimate(definition.model.family, definition.hyperparameters, dataset)
    if size is not None and size > limits.max_model_parameters:
        found.refuse(
            ("hyperparameters",),
            f"Expected at most {limits.max_model_parameters:,} parameters in the largest model of the space, "
            f"this service's limit. Received: about {size:,}",
        )
