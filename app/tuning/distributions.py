"""Declared parameters as Optuna's distributions."""

from __future__ import annotations

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from app.domain.space import Categorical, Float, Int, resolution_order
from app.domain.study import StudyDefinition


def distribution(parameter: Float | Int | Categorical) -> BaseDistribution:
    """The distribution from which Optuna draws the parameter."""
    if isinstance(parameter, Categorical):
        return CategoricalDistribution(parameter.choices)
    if isinstance(parameter, Int):
        return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def distributions(definition: StudyDefinition) -> dict[str, BaseDistribution]:
    """The distributions of the searched parameters, parents before children, then by name."""
    searched = definition.searched
    return {name: distribution(searched[name]) for name in resolution_order(searched, definition.fixed)}
