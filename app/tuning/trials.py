"""Rows of trials as Optuna's `FrozenTrial`, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Row

from app.domain.families import Scalar
from app.domain.json import decode_number, loads
from app.domain.space import Categorical, Float, Int
from app.domain.study import StudyDefinition
from app.domain.warm_start import EarlierTrial
from app.tuning.distributions import as_param, distributions

CONSTRAINT_PREFIX = "constraints:"
"""Optuna's prefix of the system attributes that hold constraint values; positive: broken."""
RUNG_PREFIX = "completed_rung_"
"""Optuna's prefix of the system attributes in which successive halving remembers a trial's value at a rung."""
BROKEN = 1e9
"""The most that a constraint counts as broken or kept, in place of amounts that aren't finite."""


Curve = dict[int, tuple[float, ...]]
"""By epoch the values of all objectives, in their order."""


class Space:
    """The searched parameters of a study of the service, with their distributions."""

    def __init__(self, definition: StudyDefinition) -> None:
        self.parameters: Mapping[str, Float | Int | Categorical] = definition.searched
        self.distributions: Mapping[str, BaseDistribution] = distributions(definition)
        """In the order in which parameters are drawn: parents first, then by name."""

    def known(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The searched parameters among `values` as Optuna sees them, in order; without those outside what was declared
        (enqueued ones).
        """
        return {
            name: as_param(self.parameters[name], values[name])
            for name in self.distributions
            if name in values and self.parameters[name].contains(values[name])
        }


def local_time(at: float | None) -> datetime | None:
    """Unix seconds as Optuna shows times: local, without a zone."""
    return None if at is None else datetime.fromtimestamp(at)  # noqa: DTZ006 - Optuna's convention


def unix_time(at: datetime | None) -> float | None:
    """The Unix seconds of one of Optuna's times."""
    return None if at is None else at.timestamp()


def read_values(text: str | None) -> list[float] | None:
    """Objective values from their JSON text."""
    return None if text is None else [decode_number(value) for value in loads(text)]


def read_curve(text: str | None) -> dict[int, float]:
    """A finished attempt's first objective by epoch from its JSON text."""
    return {} if text is None else {epoch: decode_number(value) for epoch, value, *_ in loads(text)}


def read_curves(text: str | None, objectives: int) -> Curve:
    """A finished attempt's objectives by epoch from their JSON text; without the epochs that lack any of them."""
    entries = [] if text is None else loads(text)
    return {entry[0]: tuple(map(decode_number, entry[1:])) for entry in entries if len(entry) == objectives + 1}


def constraints(violations: Iterable[float | str]) -> dict[str, float]:
    """How far constraints are broken, as Optuna keeps it in system attributes."""
    amounts = [decode_number(violation) for violation in violations]
    return {
        f"{CONSTRAINT_PREFIX}{i}": BROKEN if math.isnan(amount) else min(max(amount, -BROKEN), BROKEN)
        for i, amount in enumerate(amounts)
    }


def read_system_attributes(text: str) -> dict[str, Any]:
    """The system attributes of a trial of the service, non-finite values at rungs decoded."""
    found: dict[str, Any] = loads(text)
    return {key: decode_number(value) if key.startswith(RUNG_PREFIX) else value for key, value in found.items()}


def managed_trial(row: Row[Any], space: Space, reported: Mapping[int, float] | None = None) -> FrozenTrial:
    """A trial of the service's studies. `reported` are the values by epoch of one that still runs."""
    params = space.known(loads(row.sampled)) if row.sampled else {}
    system_attributes = read_system_attributes(row.system_attributes)
    if row.violations:
        system_attributes |= constraints(loads(row.violations))
    return FrozenTrial(
        number=row.number,
        trial_id=row.id,
        state=TrialState[row.state],
        value=None,
        values=read_values(row.objective_values),
        datetime_start=local_time(row.started_at),
        datetime_complete=local_time(row.finished_at),
        params=params,
        distributions={name: space.distributions[name] for name in params},
        user_attrs=json.loads(row.user_attributes),
        system_attrs=system_attributes,
        intermediate_values=dict(reported) if reported is not None else read_curve(row.curve),
    )


def earlier_trial(earlier: EarlierTrial, number: int, space: Space) -> FrozenTrial:
    """A trial of an earlier study as one of this one, under a `number` that no trial of this one has."""
    params = space.known(earlier.sampled)
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=TrialState.COMPLETE,
        value=None,
        values=list(earlier.values),
        datetime_start=None,
        datetime_complete=None,
        params=params,
        distributions={name: space.distributions[name] for name in params},
        user_attrs={},
        system_attrs=dict(constraints(earlier.violations)),
        intermediate_values={},
    )


def plain_trial(row: Row[Any], reported: Mapping[int, float] | None = None) -> FrozenTrial:
    """A trial that plain Optuna made. `reported` are the values by step of one that hasn't finished."""
    params: dict[str, Any] = {}
    spaces: dict[str, BaseDistribution] = {}
    for name, (internal, text) in json.loads(row.optuna_params or "{}").items():
        spaces[name] = json_to_distribution(text)
        params[name] = spaces[name].to_external_repr(internal)
    return FrozenTrial(
        number=row.number,
        trial_id=row.id,
        state=TrialState[row.state],
        value=None,
        values=read_values(row.objective_values),
        datetime_start=local_time(row.started_at),
        datetime_complete=local_time(row.finished_at),
        params=params,
        distributions=spaces,
        user_attrs=json.loads(row.user_attributes),
        system_attrs=json.loads(row.system_attributes),
        intermediate_values=dict(reported) if reported is not None else read_curve(row.curve),
    )


def write_params(params: Mapping[str, Any], spaces: Mapping[str, BaseDistribution]) -> str:
    """The JSON text of plain Optuna's parameters, in order of suggestion."""
    return json.dumps(
        {
            name: [spaces[name].to_internal_repr(value), distribution_to_json(spaces[name])]
            for name, value in params.items()
        }
    )
