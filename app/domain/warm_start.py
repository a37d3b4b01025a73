"""Warm starts: which trials of earlier studies a new study's sampler may learn from.

The rule: those that the new study could have drawn itself. All its fixed hyperparameters have the same values in the
trial; the trial's other values, by name, lie within the new ranges and under the new conditions; and the trial has no
hyperparameter that the new study doesn't have. A trial outside is left out whole: a value moved to the nearest bound
would tell the sampler of a result that nobody saw there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.domain.families import Scalar
from app.domain.space import Categorical, Float, Int, is_active, resolution_order, same_value
from app.domain.study import StudyDefinition

MOST_TRIALS = 1_000
"""Of each study that is named no more than its last ones, this many, are looked at."""
MOST_BYTES = 32_000_000
"""Of all named studies together: what is read of their trials, an equal share each. 2,000 bytes a trial."""


@dataclass(frozen=True, slots=True)
class EarlierTrial:
    """A COMPLETE trial of an earlier study as the new study's sampler sees it."""

    study: str
    number: int
    sampled: dict[str, Scalar]
    values: tuple[float, ...]
    violations: tuple[float, ...]


class Drawable:
    """What a new study could have drawn itself, prepared once for many trials of earlier ones."""

    def __init__(self, definition: StudyDefinition) -> None:
        self._names = definition.hyperparameters.keys()
        self._fixed = definition.fixed
        searched = definition.searched
        self._parameters = [(name, searched[name]) for name in resolution_order(searched, self._fixed)]
        self.conditions = len(searched) + sum(len(parameter.when) for parameter in searched.values())
        """What is looked at for each trial."""

    def sampled(self, hyperparameters: Mapping[str, Scalar]) -> dict[str, Scalar] | None:
        """What would have been sampled in a trial with these `hyperparameters`; None where it could not have been."""
        if not hyperparameters.keys() <= self._names:
            return None
        for name, value in self._fixed.items():
            if name not in hyperparameters or not same_value(hyperparameters[name], value):
                return None
        known = dict(self._fixed)
        sampled: dict[str, Scalar] = {}
        for name, parameter in self._parameters:
            if not is_active(parameter, known):
                continue
            if name not in hyperparameters or not parameter.contains(hyperparameters[name]):
                return None
            known[name] = sampled[name] = _as_declared(parameter, hyperparameters[name])
        return sampled


def why_other_results(definition: StudyDefinition, earlier: StudyDefinition) -> list[str]:
    """In what the results of an earlier study mean something else than the new one's, though they may help."""
    found = []
    if earlier.model.family != definition.model.family:
        found.append(f"it trains {earlier.model.family!r}")
    if earlier.dataset != definition.dataset:
        found.append("its data set or split is another")
    if earlier.training.epochs != definition.training.epochs:
        found.append(f"it trains {earlier.training.epochs} epochs")
    return found


def _as_declared(parameter: Float | Int | Categorical, value: Scalar) -> Scalar:
    if isinstance(parameter, Categorical):
        return parameter.choices[parameter.index(value)]
    return float(value) if isinstance(parameter, Float) else int(value)
