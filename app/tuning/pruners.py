"""The pruners that a study may name, their options, and the Optuna objects behind them.

Epochs are Optuna's steps, from 0. Where Optuna would estimate a resource from the first finished trials ("auto"), which
differ from worker to worker, it follows from the study's `training.epochs` here. Where a trial is trained several
times, with folds or repeats, those are the steps: trials are compared by the result of each. Wilcoxon's pruner wants
that: it compares trials over the same instances, and over epochs it stops better trials.
Reading and checking options imports no Optuna; `build_pruner` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, StrictInt, model_validator

from app.domain.study import NamedOptions, StudyDefinition
from app.errors import FieldError
from app.tuning.options import (
    Choice,
    Fraction,
    Loc,
    Number,
    Options,
    OptionsError,
    Positive,
    Startup,
    read_options,
    unknown_name,
)

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

PRUNER_LOC: Loc = ("pruner", "options")
MAX_PRUNERS = 3
"""Pruners in one another, by `patient`: more would say nothing new."""

Warmup = Annotated[Startup, Field(description="Epochs before which no trial is pruned.")]
Interval = Annotated[Positive, Field(description="Epochs between two checks of a trial.")]
Resource = Annotated[Literal["auto"] | Annotated[StrictInt, Field(ge=1, le=10**6)], Field(description="In epochs.")]
Reduction = Annotated[StrictInt, Field(ge=2, le=100, description="One in so many trials goes on from each rung.")]
Bootstrap = Annotated[Startup, Field(description="Trials that must complete a rung before any goes on.")]


Rule = Literal["any", "all"]


class NoneOptions(Options):
    """Options of `none`."""


class JudgingOptions(Options):
    """What every pruner takes that knows one objective: of several, which one, or how many must agree."""

    metric: Annotated[
        str | None, Field(description="Of several objectives the one that is judged; null: by `rule`.")
    ] = None
    rule: Annotated[
        Rule | None,
        Field(description="With several objectives each is judged; a trial is pruned where any or all of them say so."),
    ] = None


class MedianOptions(JudgingOptions):
    """Options of `median`."""

    n_startup_trials: Annotated[Startup, Field(description="Complete trials before which none is pruned.")] = 5
    n_warmup_steps: Warmup = 0
    interval_steps: Interval = 1
    n_min_trials: Annotated[Positive, Field(description="Complete trials with a value at the epoch.")] = 1


class PercentileOptions(MedianOptions):
    """Options of `percentile`."""

    percentile: Annotated[
        float, Field(strict=True, ge=0, le=100, description="Share of trials that is kept, in percent.")
    ] = 25.0


class SuccessiveHalvingOptions(JudgingOptions):
    """Options of `successive_halving`; "auto" is a hundredth of the study's epochs, at least one."""

    min_resource: Resource = "auto"
    reduction_factor: Reduction = 4
    min_early_stopping_rate: Annotated[StrictInt, Field(ge=0, le=100)] = 0
    bootstrap_count: Bootstrap = 0


class HyperbandOptions(JudgingOptions):
    """Options of `hyperband`; "auto" is the study's epochs."""

    min_resource: Annotated[StrictInt, Field(ge=1, le=10**6, description="In epochs.")] = 1
    max_resource: Resource = "auto"
    reduction_factor: Reduction = 3
    bootstrap_count: Bootstrap = 0


class PatientOptions(JudgingOptions):
    """Options of `patient`: `pruner` is asked once a trial has stopped improving; without it that alone prunes."""

    patience: Annotated[StrictInt, Field(ge=0, le=10**6, description="Epochs without improvement.")] = 5
    min_delta: Annotated[Number, Field(ge=0, description="What counts as no improvement.")] = 0.0
    pruner: NamedOptions | None = None


class ThresholdOptions(JudgingOptions):
    """Options of `threshold`: trials whose value leaves [lower, upper] are pruned."""

    lower: Number | None = None
    upper: Number | None = None
    n_warmup_steps: Warmup = 0
    interval_steps: Interval = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.lower is None and self.upper is None:
            raise ValueError("Expected lower, upper or both. Received neither")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ValueError(f"Expected lower <= upper. Received: lower={self.lower}, upper={self.upper}")
        return self


class WilcoxonOptions(JudgingOptions):
    """Options of `wilcoxon`."""

    p_threshold: Annotated[
        Fraction, Field(description="Largest p at which a trial is taken to be worse than the best one, and pruned.")
    ] = 0.1
    n_startup_steps: Annotated[Startup, Field(description="Folds and repeats before which no trial is pruned.")] = 2


class ParetoOptions(Options):
    """Options of `pareto`."""

    n_startup_trials: Annotated[Startup, Field(description="Complete trials before which none is pruned.")] = 5
    n_warmup_steps: Warmup = 0
    interval_steps: Interval = 1
    n_min_trials: Annotated[Positive, Field(description="Complete trials with values at the epoch.")] = 1
    dominated_share: Annotated[
        Fraction, Field(description="A trial that more than this share of the complete ones dominate is pruned.")
    ] = 0.25


@dataclass(frozen=True, slots=True)
class _Offer:
    model: type[Options]
    description: str
    compares: bool = True


_PRUNERS: Mapping[str, _Offer] = {
    "none": _Offer(NoneOptions, "Every trial runs to its end.", compares=False),
    "median": _Offer(MedianOptions, "Stops trials that are worse than the median of the complete ones."),
    "percentile": _Offer(PercentileOptions, "Stops trials that are not among the best so many percent."),
    "successive_halving": _Offer(SuccessiveHalvingOptions, "Asynchronous successive halving (Li et al., 2018)."),
    "hyperband": _Offer(HyperbandOptions, "Several successive halvings at once (Li et al., 2016)."),
    "patient": _Offer(PatientOptions, "Asks another pruner only about trials that stopped improving."),
    "threshold": _Offer(ThresholdOptions, "Stops trials whose value leaves a range.", compares=False),
    "wilcoxon": _Offer(
        WilcoxonOptions, "With folds or repeats: stops trials that are worse than the best one by a signed-rank test."
    ),
    "pareto": _Offer(ParetoOptions, "With several objectives: stops trials that many others dominate at their epoch."),
}


def pruners() -> list[Choice]:
    """All pruners that a study may name."""
    return [
        Choice(name, offer.description, multi_objective=True, options=offer.model.model_json_schema())
        for name, offer in _PRUNERS.items()
    ]


def pruner_options(name: str, options: Mapping[str, Any], loc: Loc = PRUNER_LOC) -> Options:
    """The options of the pruner `name`, checked, all defaults filled in; `loc` is their path in the definition.

    Raises:
        OptionsError: an unknown name, or an option that is unknown, of the wrong type or out of range.
    """
    if name not in _PRUNERS:
        raise unknown_name("pruner", name, _PRUNERS, (*loc[:-1], "name"))
    found = read_options(_PRUNERS[name].model, options, loc)
    if isinstance(found, PatientOptions) and found.pruner is not None:
        inner: Loc = (*loc, "pruner", "options")
        if inner.count("pruner") > MAX_PRUNERS:
            raise OptionsError([FieldError(inner[:-1], f"Expected at most {MAX_PRUNERS} pruners in one another")])
        pruner_options(found.pruner.name, found.pruner.options, inner)
    return found


def _levels(definition: StudyDefinition) -> list[tuple[Loc, Options]]:
    """The study's pruner and those that it asks in turn, each with the path of its options."""
    levels: list[tuple[Loc, Options]] = []
    named: NamedOptions | None = definition.pruner
    loc = PRUNER_LOC
    while named is not None:
        options = pruner_options(named.name, named.options, loc)
        levels.append((loc, options))
        named = options.pruner if isinstance(options, PatientOptions) else None
        loc = (*loc, "pruner", "options")
    return levels


def pruner_compares(definition: StudyDefinition) -> bool:
    """Whether the pruner looks at other trials; False means that a worker needs none of them to prune."""
    comparing = tuple(
        offer.model for offer in _PRUNERS.values() if offer.compares and offer.model is not PatientOptions
    )
    return any(isinstance(options, comparing) for _, options in _levels(definition))


def pruner_problems(definition: StudyDefinition) -> list[FieldError]:
    """Why the study's pruner can't be used for it, as errors of the definition; none where it can."""
    try:
        levels = _levels(definition)
    except OptionsError as error:
        return error.errors
    problems = [
        *_objective_problems(definition, levels[0][1]),
        *_inner_problems(levels[1:]),
        *_instance_problems(definition, levels),
    ]
    for loc, options in levels:
        if isinstance(options, HyperbandOptions):
            longest = steps_of(definition) if options.max_resource == "auto" else options.max_resource
            if options.min_resource > longest:
                message = f"Expected at most max_resource = {longest} epochs. Received: {options.min_resource}"
                problems.append(FieldError((*loc, "min_resource"), message))
    return problems


def steps_of(definition: StudyDefinition) -> int:
    """How often a trial is judged: after each epoch, or after each fold and repeat where there are several."""
    training = definition.training
    return training.epochs if training.instances == 1 else training.instances


def _instance_problems(definition: StudyDefinition, levels: list[tuple[Loc, Options]]) -> list[FieldError]:
    if definition.training.instances > 1:
        return []
    message = "Expected training.folds or training.repeats above 1 with the pruner 'wilcoxon', which compares by them"
    return [FieldError((*loc[:-1], "name"), message) for loc, options in levels if isinstance(options, WilcoxonOptions)]


def _objective_problems(definition: StudyDefinition, options: Options) -> list[FieldError]:
    """What is wrong with how a pruner is to judge the study's objectives."""
    metrics = [objective.metric for objective in definition.objectives]
    several = len(metrics) > 1
    if isinstance(options, ParetoOptions) and not several:
        message = "Expected several objectives with the pruner 'pareto'. With one, 'percentile' does the same"
        return [FieldError(("pruner", "name"), message)]
    if not isinstance(options, JudgingOptions):
        return []
    if options.metric is not None and options.metric not in metrics:
        message = f"Expected an objective: {', '.join(metrics)}. Received: {options.metric!r}"
        return [FieldError((*PRUNER_LOC, "metric"), message)]
    if options.rule is not None and (not several or options.metric is not None):
        why = "beside a metric" if several else "with one objective"
        return [FieldError((*PRUNER_LOC, "rule"), f"Expected none {why}. Received: {options.rule!r}")]
    if several and options.rule is None and options.metric is None:
        message = (
            f"Expected `metric`, one of {', '.join(metrics)}, or `rule`, any or all, with several objectives. "
            "The pruner 'pareto' judges them together"
        )
        return [FieldError(PRUNER_LOC, message)]
    return []


def _inner_problems(levels: list[tuple[Loc, Options]]) -> list[FieldError]:
    """What is wrong with pruners that another one asks."""
    problems = []
    for loc, options in levels:
        if isinstance(options, ParetoOptions):
            message = "Expected a pruner of one objective within 'patient'. Received: 'pareto'"
            problems.append(FieldError((*loc[:-1], "name"), message))
        for name in ("metric", "rule"):
            if getattr(options, name, None) is not None:
                message = "Expected it at the outermost pruner, which judges for those within"
                problems.append(FieldError((*loc, name), message))
    return problems


def judged_objectives(definition: StudyDefinition) -> list[int]:
    """The places of the objectives that the study's pruner judges one by one."""
    options = pruner_options(definition.pruner.name, definition.pruner.options)
    named = options.metric if isinstance(options, JudgingOptions) else None
    return [i for i, objective in enumerate(definition.objectives) if named in (None, objective.metric)]


def build_pruner(definition: StudyDefinition) -> BasePruner | None:
    """The Optuna pruner of a study whose definition was checked, for one of its objectives; None where none is ever
    pruned by one objective.
    """
    return _build(definition.pruner, steps_of(definition), definition.name)


def _build(named: NamedOptions, epochs: int, study_name: str) -> BasePruner | None:
    import optuna.pruners as theirs

    from app.tuning.halving import Hyperband, SuccessiveHalving
    from app.tuning.percentile import StepwisePercentilePruner

    options = pruner_options(named.name, named.options)
    given = options.model_dump(exclude={"metric", "rule"})
    match options:
        case PercentileOptions():
            return StepwisePercentilePruner(**given)
        case MedianOptions():
            return StepwisePercentilePruner(percentile=50.0, **given)
        case SuccessiveHalvingOptions():
            if options.min_resource == "auto":
                given["min_resource"] = max((epochs - 1) // 100, 1)
            return SuccessiveHalving(**given)
        case HyperbandOptions():
            if options.max_resource == "auto":
                given["max_resource"] = epochs
            return Hyperband(study_name, **given)
        case PatientOptions():
            inner = None if options.pruner is None else _build(options.pruner, epochs, study_name)
            if options.pruner is not None and inner is None:
                return None
            return theirs.PatientPruner(inner, options.patience, options.min_delta)
        case WilcoxonOptions():
            return theirs.WilcoxonPruner(**given)
        case ThresholdOptions():
            return theirs.ThresholdPruner(**given)
        case _:
            return None
