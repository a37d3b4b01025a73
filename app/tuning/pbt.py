"""Population-based training (Jaderberg et al., "Population Based Training of Neural Networks", 2017) as a sampler.

A trial is a segment of a member's training. One of the first generation draws its values from the space. One of a later
generation goes on from the trial before it of the same member; where that one is among the worst `quantile` of its
generation, it goes on from one of the best `quantile` instead (truncation selection: exploit) with values that are
drawn anew or multiplied by a factor (explore).

A generation begins once all trials of the one before have finished, so that a proposal depends on the study's seed, the
trial's number and their results alone: not on which worker asks, or when.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna import samplers
from optuna.trial import TrialState

from app.domain.families import Scalar
from app.domain.population import FIRST_EPOCH_KEY, HANDED_ON_KEY, PARENT_KEY, Population
from app.domain.space import Categorical, Float, Int
from app.domain.study import StudyDefinition, trial_seed
from app.tuning.trials import CONSTRAINT_PREFIX

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from app.tuning.samplers import PbtOptions


class Pbt(samplers.BaseSampler):
    """The values of a trial, and in its system attributes the trial that it goes on from."""

    def __init__(self, definition: StudyDefinition, options: PbtOptions, population: Population) -> None:
        self._parameters = definition.searched
        self._maximize = definition.objectives[0].maximizes
        self._options = options
        self._population = population
        self._random_sampler = samplers.RandomSampler(seed=options.seed)

    def needs_finished(self, number: int) -> int:
        """How many finished trials must be known before trial `number` is drawn."""
        return self._population.generation(number) * self._population.size

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        return {}

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> dict[str, Any]:
        """The parent's values, perturbed where it isn't the trial's own predecessor; those left out are drawn anew."""
        ranked = self._ranked(study, self._population.generation(trial.number) - 1)
        if not ranked:
            return {}
        dice = random.Random(trial_seed(self._options.seed, trial.number))
        size = self._population.size
        chosen = max(1, int(self._options.quantile * size))
        place = next((i for i, other in enumerate(ranked) if other.number == trial.number - size), size)
        if place < size - chosen:
            parent = ranked[place]
            values = dict(parent.params)
        else:
            parent = dice.choice(ranked[:chosen])
            values = self._explored(parent.params, dice)
        first_epoch = parent.system_attrs.get(FIRST_EPOCH_KEY, 0) + self._population.interval
        for key, value in ((PARENT_KEY, parent.number), (FIRST_EPOCH_KEY, first_epoch)):
            study._storage.set_trial_system_attr(trial._trial_id, key, value)
        return values

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value drawn from the space."""
        return self._random_sampler.sample_independent(study, trial, param_name, param_distribution)

    def _ranked(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The trials of a generation that left their state, the best first: feasible ones, then by value and number."""
        first = generation * self._population.size
        found = [
            t
            for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if first <= t.number < first + self._population.size and t.system_attrs.get(HANDED_ON_KEY)
        ]
        sign = -1.0 if self._maximize else 1.0
        return sorted(found, key=lambda t: (_is_infeasible(t.system_attrs), sign * t.values[0], t.number))

    def _explored(self, values: Mapping[str, Scalar], dice: random.Random) -> dict[str, Scalar]:
        """Some values multiplied by a factor; without those that are to be drawn anew."""
        explored: dict[str, Scalar] = {}
        for name, value in sorted(values.items()):
            anew, factor = dice.random() < self._options.resample_probability, dice.choice(self._options.perturbation)
            if not anew:
                explored[name] = perturbed(self._parameters[name], value, factor)
        return explored


def perturbed(parameter: Float | Int | Categorical, value: Scalar, factor: float) -> Scalar:
    """`value` times `factor`, in the range and on the steps of `parameter`; a choice stays what it is.

    A value on steps that rounding would leave where it is moves by one step.
    """
    if isinstance(parameter, Categorical):
        return value
    low, high, step = parameter.low, parameter.high, parameter.step
    moved = min(max(float(value) * factor, low), high)
    if step is None:
        return moved
    before, after = round((float(value) - low) / step), round((moved - low) / step)
    if after == before and factor != 1.0:
        after += 1 if (factor > 1.0) == (float(value) >= 0) else -1
    last = round((high - low) / step) if isinstance(parameter, Float) else (parameter.high - parameter.low) // step
    after = int(min(max(after, 0), last))
    return parameter.low + after * parameter.step if isinstance(parameter, Int) else min(low + after * step, high)


def _is_infeasible(attributes: Mapping[str, Any]) -> bool:
    return any(value > 0 for key, value in attributes.items() if key.startswith(CONSTRAINT_PREFIX))


def ancestry(attributes: Mapping[str, Any]) -> tuple[int | None, int]:
    """The parent and the first epoch that a trial's system attributes name."""
    return attributes.get(PARENT_KEY), int(attributes.get(FIRST_EPOCH_KEY, 0))
