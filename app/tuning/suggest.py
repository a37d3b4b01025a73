"""Drawing the hyperparameters of one trial from an Optuna sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from app.domain.families import Family, Scalar
from app.domain.registry import BUILT_IN
from app.domain.space import is_active
from app.domain.study import StudyDefinition
from app.tuning.declared import ORDINAL_KEY
from app.tuning.distributions import as_param, as_value
from app.tuning.trials import RUNG_PREFIX, Space

RELATIVE_PARAMS = ":relative_params:"
"""Part of the keys by which Optuna's samplers tell other processes what they are about to propose."""


def running_trial(
    trial_id: int, number: int, sampled: Mapping[str, Scalar], space: Space, system_attributes: dict[str, Any]
) -> FrozenTrial:
    """A running trial as a sampler sees it."""
    params = space.known(sampled)
    return FrozenTrial(
        number=number,
        trial_id=trial_id,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params=params,
        distributions={name: space.distributions[name] for name in params},
        user_attrs={},
        system_attrs=system_attributes,
        intermediate_values={},
    )


def draw(
    study: Study,
    sampler: BaseSampler,
    trial: FrozenTrial,
    space: Space,
    fixed: Mapping[str, Scalar],
    requested: Mapping[str, Scalar],
) -> dict[str, Scalar]:
    """The searched hyperparameters of `trial`, all drawn at once: parents first, then by name.

    A `requested` value is taken as it is; a parameter whose conditions don't hold is left out. What is drawn is set on
    `trial`, except requested values outside the declared range, which would mislead the sampler.
    """
    sampler.before_trial(study, trial)
    relative_space = sampler.infer_relative_search_space(study, trial)
    relative = sampler.sample_relative(study, trial, relative_space)
    sampled: dict[str, Scalar] = {}
    known = dict(fixed)
    for name, distribution in space.distributions.items():
        parameter = space.parameters[name]
        if not is_active(parameter, known):
            continue
        if name in requested:
            known[name] = sampled[name] = requested[name]
            if not parameter.contains(requested[name]):
                continue
            param = as_param(parameter, requested[name])
        elif name in relative and distribution._contains(distribution.to_internal_repr(relative[name])):
            param = relative[name]
        else:
            param = sampler.sample_independent(study, trial, name, distribution)
        known[name] = sampled[name] = as_value(parameter, param)
        trial.params[name] = param
        trial.distributions[name] = distribution
    return sampled


def complete(
    definition: StudyDefinition,
    sampled: Mapping[str, Scalar],
    requested: Mapping[str, Scalar],
    family: Family | None = None,
) -> dict[str, Scalar]:
    """All hyperparameters of a trial: the family's defaults, over them the fixed, requested and drawn ones.

    `family` is the study's; the built-in one of its name where it isn't given.

    A requested value of a searched parameter counts where it was drawn: not where its conditions don't hold.
    """
    family = family or BUILT_IN.of(definition.model, definition.hyperparameters)
    unsearched = {name: value for name, value in requested.items() if name not in definition.searched}
    return {**(family.defaults() if family else {}), **definition.fixed, **unsearched, **sampled}


def kept_attributes(system_attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The system attributes that are worth storing with a trial."""
    return {key: value for key, value in system_attributes.items() if key != ORDINAL_KEY and RELATIVE_PARAMS not in key}


def of_new_attempt(system_attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What remains of a trial's system attributes when it runs again: not the rungs of its earlier attempt."""
    return {key: value for key, value in system_attributes.items() if not key.startswith(RUNG_PREFIX)}
