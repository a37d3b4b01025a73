"""Declared parameters as Optuna's distributions, and their values as Optuna sees them.

An ordered categorical is a whole number to Optuna, the choice's index: samplers and importances then know which choices
are neighbours. Everywhere else its value is the choice.
"""

from __future__ import annotations

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from app.domain.families import Scalar
from app.domain.space import Categorical, Float, Int, resolution_order
from app.domain.study import StudyDefinition


def distribution(parameter: Float | Int | Categorical) -> BaseDistribution:
    """The distribution from which Optuna draws the parameter."""
    if isinstance(parameter, Categorical):
        if parameter.ordered:
            return IntDistribution(0, len(parameter.choices) - 1)
        return CategoricalDistribution(parameter.choices)
    if isinstance(parameter, Int):
        return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
    found = FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    # Not by its constructor, which counts steps in decimals: 1.1 in steps of 0.3666666666666667 would end at 0.73.
    found.step = parameter.step
    return found


def as_param(parameter: Float | Int | Categorical, value: Scalar) -> Scalar:
    """A parameter's value as Optuna sees it.

    Raises:
        ValueError: it is none of the choices of an ordered categorical.
    """
    return parameter.index(value) if isinstance(parameter, Categorical) and parameter.ordered else value


def as_value(parameter: Float | Int | Categorical, param: Scalar) -> Scalar:
    """The value that Optuna's `param` stands for."""
    return parameter.choices[int(param)] if isinstance(parameter, Categorical) and parameter.ordered else param


def distributions(definition: StudyDefinition) -> dict[str, BaseDistribution]:
    """The distributions of the searched parameters, parents before children, then by name."""
    searched = definition.searched
    return {name: distribution(searched[name]) for name in resolution_order(searched, definition.fixed)}
