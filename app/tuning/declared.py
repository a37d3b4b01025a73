"""Optuna's samplers for a search space that is declared beforehand.

Optuna infers the space from the trials that have finished, which differ from worker to worker; here it is known. The
space, the place in a sequence (a trial's *ordinal*) and the generator (`reseed`) are all that an ask depends on besides
the finished trials, so that any worker that has seen the same trials proposes the same.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from optuna import samplers
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers._lazy_random_state import LazyRandomState

from app.domain.population import population_of
from app.domain.space import axis_size, axis_value
from app.domain.study import StudyDefinition, trial_seed
from app.tuning.distributions import as_param, distributions
from app.tuning.pbt import Pbt
from app.tuning.tpe import Tpe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

    from app.tuning.samplers import GpOptions, NsgaiiiOptions, NsgaiiOptions, PbtOptions, QmcOptions, TpeOptions

ORDINAL_KEY = "fettle:ordinal"
"""System attribute of a running trial, in memory alone: its place in a grid or sequence."""
FEISTEL_ROUNDS = 6
"""Enough that neighbouring cells are far apart; each takes a mix of seed and half from `trial_seed`."""

Space = dict[str, BaseDistribution]


def reseed(sampler: samplers.BaseSampler, seed: int) -> None:
    """Start all random generators of a sampler of this module from `seed` (0..2**31-1)."""
    for offset, name in enumerate(("_rng", "_random_sampler", "_independent_sampler")):
        part = vars(sampler).get(name)
        if isinstance(part, samplers.BaseSampler):
            part = vars(part).get("_rng")
        if isinstance(part, LazyRandomState):
            part.rng.seed((seed + offset * 0x9E3779B9) & 0xFFFFFFFF)
    if isinstance(sampler, samplers.GPSampler):
        # Kernel parameters of this process' last ask, which would start the next fit.
        sampler._gprs_cache_list = None
        sampler._constraints_gprs_cache_list = None


def groups(definition: StudyDefinition) -> list[Space]:
    """The searched parameters in groups that are drawn together or not at all: those under equal conditions."""
    found: dict[tuple[Any, ...], Space] = {}
    every = distributions(definition)
    for name, parameter in definition.searched.items():
        key = tuple(sorted((parent, repr(values)) for parent, values in parameter.when.items()))
        if not every[name].single():
            found.setdefault(key, {})[name] = every[name]
    return [dict(sorted(group.items())) for _, group in sorted(found.items())]


def always_drawn(definition: StudyDefinition) -> Space:
    """The parameters without conditions that have more than one value, by name."""
    every = distributions(definition)
    names = sorted(n for n, p in definition.searched.items() if not p.when and not every[n].single())
    return {name: every[name] for name in names}


class Nsgaii(samplers.NSGAIISampler):
    """NSGA-II over the parameters that every trial has."""

    declared_space: Space

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:  # noqa: ARG002
        return dict(self.declared_space)


class Nsgaiii(samplers.NSGAIIISampler):
    """NSGA-III over the parameters that every trial has."""

    declared_space: Space

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:  # noqa: ARG002
        return dict(self.declared_space)


class Gp(samplers.GPSampler):
    """A Gaussian process over the parameters that every trial has."""

    declared_space: Space

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:  # noqa: ARG002
        return dict(self.declared_space)


class Qmc(samplers.QMCSampler):
    """A quasi-random sequence over the whole space, conditional parameters included, at the trial's ordinal."""

    declared_space: Space
    ordinal: int = 0

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:  # noqa: ARG002
        return dict(self.declared_space)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        self.ordinal = trial.system_attrs[ORDINAL_KEY]
        return super().sample_relative(study, trial, search_space)

    def _find_sample_id(self, study: Study, search_space: Space) -> int:  # noqa: ARG002
        return self.ordinal


class Grid(samplers.BaseSampler):
    """Every combination of a finite space, in an order shuffled by the seed, at the trial's ordinal.

    Optuna's own `GridSampler` keeps all combinations in memory and takes a cell by the trials that it happens to see.
    """

    def __init__(self, definition: StudyDefinition, seed: int) -> None:
        self._axes = sorted(definition.searched.items())
        self._space = distributions(definition)
        self._cells = math.prod(axis_size(parameter) for _, parameter in self._axes)
        self._seed = seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:  # noqa: ARG002
        return dict(self._space)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:  # noqa: ARG002
        cell = shuffled(trial.system_attrs[ORDINAL_KEY] % self._cells, self._cells, self._seed)
        values: dict[str, Any] = {}
        for name, parameter in reversed(self._axes):
            cell, index = divmod(cell, axis_size(parameter))
            values[name] = as_param(parameter, axis_value(parameter, index))
        return values

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The same value as `sample_relative` gives."""
        return self.sample_relative(study, trial, {param_name: param_distribution})[param_name]

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Nothing: the study's budget ends with the last cell, by the store."""


def shuffled(index: int, size: int, seed: int) -> int:
    """Where a permutation of 0..size-1 that depends on `seed` takes `index`, without a table of it.

    A balanced Feistel network on the next even number of bits, walked until it lands below `size` again (Black and
    Rogaway, "Ciphers with arbitrary finite domains", 2002): at most about four steps on average.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for round_number in range(FEISTEL_ROUNDS):
            left, right = right, left ^ (trial_seed(seed + round_number, right) & mask)
        index = left << half | right
        if index < size:
            return index


def random() -> samplers.BaseSampler:
    """Independent random values."""
    return samplers.RandomSampler(seed=0)


def tpe(definition: StudyDefinition, options: TpeOptions) -> samplers.BaseSampler:
    """TPE in which running trials count as bad ones (constant liar), so that parallel asks spread out."""
    return Tpe(
        groups(definition),
        n_startup_trials=options.n_startup_trials,
        n_ei_candidates=options.n_ei_candidates,
        seed=options.seed,
    )


def qmc(definition: StudyDefinition, options: QmcOptions) -> samplers.BaseSampler:
    """A Sobol' or Halton sequence."""
    sampler = Qmc(
        qmc_type=options.qmc_type, scramble=options.scramble, seed=options.seed, warn_independent_sampling=False
    )
    sampler.declared_space = {name: space for name, space in distributions(definition).items() if not space.single()}
    return sampler


def gp(definition: StudyDefinition, options: GpOptions) -> samplers.BaseSampler:
    """A Gaussian process; parameters with conditions are drawn at random."""
    sampler = Gp(
        seed=options.seed,
        n_startup_trials=options.n_startup_trials,
        deterministic_objective=options.deterministic_objective,
        warn_independent_sampling=False,
    )
    sampler.declared_space = always_drawn(definition)
    return sampler


def nsgaii(definition: StudyDefinition, options: NsgaiiOptions) -> samplers.BaseSampler:
    """NSGA-II; parameters with conditions are drawn at random."""
    sampler = Nsgaii(
        population_size=options.population_size,
        mutation_prob=options.mutation_prob,
        crossover_prob=options.crossover_prob,
        swapping_prob=options.swapping_prob,
        seed=options.seed,
    )
    sampler.declared_space = always_drawn(definition)
    return sampler


def nsgaiii(definition: StudyDefinition, options: NsgaiiiOptions) -> samplers.BaseSampler:
    """NSGA-III; parameters with conditions are drawn at random."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = Nsgaiii(
            population_size=options.population_size,
            mutation_prob=options.mutation_prob,
            crossover_prob=options.crossover_prob,
            swapping_prob=options.swapping_prob,
            dividing_parameter=options.dividing_parameter,
            seed=options.seed,
        )
    sampler.declared_space = always_drawn(definition)
    return sampler


def pbt(definition: StudyDefinition, options: PbtOptions) -> samplers.BaseSampler:
    """Population-based training."""
    population = population_of(definition)
    if population is None:
        raise ValueError(f"Expected a study of a population. Received the sampler {definition.sampler.name!r}")
    return Pbt(definition, options, population)
