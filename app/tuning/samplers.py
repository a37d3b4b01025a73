"""The samplers that a study may name, their options, and the Optuna objects behind them.

Only what is listed here can be named, and options are checked before a study is stored. Optuna's CMA-ES is left out on
purpose: `CmaEsSampler` unpickles trial attributes, so that write access to the database would be code execution.
Reading and checking options imports no Optuna (a second that the API need not pay); `build_sampler` does.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt

from app.domain.families import Family
from app.domain.population import INTERVAL_EPOCHS, POPULATION_SIZE, SAMPLER, population_of
from app.domain.space import Categorical, Float, axis_size
from app.domain.study import Seed, StudyDefinition
from app.errors import FieldError
from app.tuning.options import Choice, Fraction, Loc, Options, OptionsError, Startup, read_options, unknown_name
from app.tuning.population import population_problems

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

SAMPLER_LOC: Loc = ("sampler", "options")
MOST_REFERENCE_POINTS = 10_000
"""Of `nsgaiii`: each generation compares every trial with all of them."""
MOST_DRAWN = 1_000_000
"""Of `tpe`: candidates of a proposal times what they are drawn from: choices, or a range for one."""
MOST_COMPARED = 1_000_000_000
"""Of `tpe`: candidates times hyperparameters times trials that each is compared with. A proposal of some seconds."""
UNBOUNDED_TRIALS = 100_000
"""What a study without a budget of trials is taken to have at last."""


class SeededOptions(Options):
    """What every sampler takes."""

    seed: Annotated[Seed, Field(description="Same seed, same proposals, whichever worker asks.")] = 0


class RandomOptions(SeededOptions):
    """Options of `random`."""


class GridOptions(SeededOptions):
    """Options of `grid`."""


class TpeOptions(SeededOptions):
    """Options of `tpe`."""

    n_startup_trials: Annotated[Startup, Field(description="Finished trials before which it draws at random.")] = 10
    n_ei_candidates: Annotated[
        StrictInt, Field(ge=1, le=10_000, description="Candidates of which the best expected improvement is taken.")
    ] = 24


class QmcOptions(SeededOptions):
    """Options of `qmc`."""

    qmc_type: Annotated[Literal["sobol", "halton"], Field(description="The low-discrepancy sequence.")] = "sobol"
    scramble: Annotated[
        StrictBool, Field(description="Owen's scrambling by the seed; without it the first point is all lower bounds.")
    ] = True


class GpOptions(SeededOptions):
    """Options of `gp`."""

    n_startup_trials: Annotated[Startup, Field(description="Complete trials before which it draws at random.")] = 10
    deterministic_objective: Annotated[StrictBool, Field(description="Whether equal trials give equal values.")] = False


class NsgaiiOptions(SeededOptions):
    """Options of `nsgaii`."""

    population_size: Annotated[StrictInt, Field(ge=2, le=10_000, description="Trials of a generation.")] = 50
    mutation_prob: Annotated[
        Fraction | None, Field(description="Probability that a parameter is drawn anew; null: 1 / parameters.")
    ] = None
    crossover_prob: Annotated[Fraction, Field(description="Probability that a child has two parents.")] = 0.9
    swapping_prob: Annotated[Fraction, Field(description="Probability that a value comes from the second one.")] = 0.5


class PbtOptions(SeededOptions):
    """Options of `pbt`."""

    population_size: Annotated[StrictInt, Field(ge=2, le=1000, description="Members that train side by side.")] = (
        POPULATION_SIZE
    )
    interval_epochs: Annotated[
        StrictInt, Field(ge=1, le=100_000, description="Epochs of a trial, after which the worst copy the best.")
    ] = INTERVAL_EPOCHS
    quantile: Annotated[
        float, Field(strict=True, gt=0, le=0.5, description="Share of the members that copy, and that are copied.")
    ] = 0.25
    perturbation: Annotated[
        list[Annotated[float, Field(strict=True, gt=0, le=1e6)]],
        Field(min_length=1, max_length=16, description="Factors of which a copied value is multiplied by one."),
    ] = [0.8, 1.2]
    resample_probability: Annotated[Fraction, Field(description="Probability that a value is drawn anew instead.")] = (
        0.25
    )


class NsgaiiiOptions(NsgaiiOptions):
    """Options of `nsgaiii`."""

    dividing_parameter: Annotated[
        StrictInt, Field(ge=1, le=100, description="Divisions of each objective's axis between reference points.")
    ] = 3


@dataclass(frozen=True, slots=True)
class _Offer:
    model: type[SeededOptions]
    description: str
    learns: bool
    multi_objective: bool = True


_SAMPLERS: Mapping[str, _Offer] = {
    "tpe": _Offer(TpeOptions, "Tree-structured Parzen estimator, multivariate (Bergstra et al., 2011).", learns=True),
    "random": _Offer(RandomOptions, "Independent random values.", learns=False),
    "grid": _Offer(GridOptions, "Every combination once, in an order shuffled by the seed.", learns=False),
    "qmc": _Offer(QmcOptions, "A quasi-random sequence that fills the space evenly.", learns=False),
    "gp": _Offer(GpOptions, "Gaussian process; needs the extra `fettle[gp]`.", learns=True),
    "nsgaii": _Offer(NsgaiiOptions, "Genetic algorithm for several objectives (Deb et al., 2002).", learns=True),
    SAMPLER: _Offer(
        PbtOptions,
        "Population-based training: the worst members copy weights and values of the best (Jaderberg et al., 2017).",
        learns=True,
        multi_objective=False,
    ),
    "nsgaiii": _Offer(
        NsgaiiiOptions, "The same with reference points, for three objectives and more (Deb, Jain, 2014).", learns=True
    ),
}


def samplers() -> list[Choice]:
    """All samplers that a study may name."""
    return [
        Choice(name, offer.description, offer.multi_objective, options=offer.model.model_json_schema())
        for name, offer in _SAMPLERS.items()
    ]


def sampler_options(name: str, options: Mapping[str, Any], loc: Loc = SAMPLER_LOC) -> SeededOptions:
    """The options of the sampler `name`, checked, all defaults filled in; `loc` is their path in the definition.

    Raises:
        OptionsError: an unknown name, or an option that is unknown, of the wrong type or out of range.
    """
    if name not in _SAMPLERS:
        raise unknown_name("sampler", name, _SAMPLERS, (*loc[:-1], "name"))
    return read_options(_SAMPLERS[name].model, options, loc)


def sampler_learns(definition: StudyDefinition) -> bool:
    """Whether proposals depend on other trials; False means that a worker needs none of them to ask."""
    return _SAMPLERS[definition.sampler.name].learns


def study_seed(definition: StudyDefinition) -> int:
    """The seed of the study's proposals: the sampler's option `seed`. (`training.seed` is another one.)"""
    return sampler_options(definition.sampler.name, definition.sampler.options).seed


def sampler_problems(definition: StudyDefinition, family: Family | None = None) -> list[FieldError]:
    """Why the study's sampler can't be used for it, as errors of the definition; none where it can.

    `family` is the study's; the built-in one of its name where left out.
    """
    name = definition.sampler.name
    try:
        sampler_options(name, definition.sampler.options)
    except OptionsError as error:
        return error.errors
    if definition.warm_start.studies and not sampler_learns(definition):
        message = f"Expected none with the sampler {name!r}, which learns from no trials"
        return [FieldError(("warm_start", "studies"), message)]
    if name == "gp" and not all(importlib.util.find_spec(module) for module in ("torch", "scipy")):
        return [FieldError(("sampler", "name"), "Expected torch and scipy for the sampler 'gp': install fettle[gp]")]
    if name == "nsgaiii":
        return _reference_problems(definition)
    if name == "tpe":
        return list(candidate_problems(definition))
    return _grid_problems(definition) if name == "grid" else list(population_problems(definition, family))


def candidate_problems(definition: StudyDefinition) -> Iterator[FieldError]:
    """Why a study's TPE would take too long for a proposal: its candidates, its space and its trials multiply."""
    options = sampler_options(definition.sampler.name, definition.sampler.options)
    if not isinstance(options, TpeOptions):
        return
    candidates, searched = options.n_ei_candidates, definition.searched
    drawn_from = sum(len(p.choices) if isinstance(p, Categorical) else 1 for p in searched.values())
    trials = definition.budget.trials or UNBOUNDED_TRIALS
    loc = (*SAMPLER_LOC, "n_ei_candidates")
    if candidates * drawn_from > MOST_DRAWN:
        yield FieldError(
            loc,
            f"Expected at most {MOST_DRAWN // drawn_from:,} candidates for {len(searched):,} searched hyperparameters "
            f"with {drawn_from:,} values to draw from. Received: {candidates:,}",
        )
    elif candidates * len(searched) * trials > MOST_COMPARED:
        yield FieldError(
            loc,
            f"Expected at most {MOST_COMPARED // (len(searched) * trials):,} candidates for {len(searched):,} searched "
            f"hyperparameters and {trials:,} trials, with which each is compared. Received: {candidates:,}",
        )


def _reference_problems(definition: StudyDefinition) -> list[FieldError]:
    options = sampler_options("nsgaiii", definition.sampler.options)
    divisions = options.dividing_parameter if isinstance(options, NsgaiiiOptions) else 0
    points = math.comb(len(definition.objectives) + divisions - 1, divisions)
    if points <= MOST_REFERENCE_POINTS:
        return []
    message = (
        f"Expected at most {MOST_REFERENCE_POINTS} reference points. Received {divisions}, which makes {points} with "
        f"{len(definition.objectives)} objectives"
    )
    return [FieldError((*SAMPLER_LOC, "dividing_parameter"), message)]


def _grid_problems(definition: StudyDefinition) -> list[FieldError]:
    problems = []
    for name, parameter in definition.searched.items():
        if parameter.when:
            message = "Expected no conditions with the sampler 'grid'"
            problems.append(FieldError(("hyperparameters", name, "when"), message))
        if isinstance(parameter, Float) and parameter.step is None:
            message = "Expected a step or choices with the sampler 'grid'. Received a continuous parameter"
            problems.append(FieldError(("hyperparameters", name), message))
    return problems


def most_trials(definition: StudyDefinition) -> int | None:
    """How many trials a `grid` or a population has; None for the other samplers, which never run out."""
    population = population_of(definition)
    return grid_cells(definition) if population is None else population.trials


def grid_cells(definition: StudyDefinition) -> int | None:
    """How many trials a `grid` can draw; None for the other samplers, which never run out."""
    if definition.sampler.name != "grid":
        return None
    return math.prod(axis_size(parameter) for parameter in definition.searched.values())


def build_sampler(definition: StudyDefinition) -> BaseSampler:
    """The Optuna sampler of a study whose definition was checked. It must be reseeded before each ask."""
    from app.tuning import declared

    options = sampler_options(definition.sampler.name, definition.sampler.options)
    match options:
        case TpeOptions():
            return declared.tpe(definition, options)
        case QmcOptions():
            return declared.qmc(definition, options)
        case GpOptions():
            return declared.gp(definition, options)
        case NsgaiiiOptions():
            return declared.nsgaiii(definition, options)
        case NsgaiiOptions():
            return declared.nsgaii(definition, options)
        case PbtOptions():
            return declared.pbt(definition, options)
        case GridOptions():
            return declared.Grid(definition, options.seed)
        case _:
            return declared.random()
