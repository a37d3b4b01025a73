"""TPE here proposes what Optuna's own TPE proposes from the same seed and the same trials."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import default_gamma
from optuna.trial import FrozenTrial, TrialState

from app.domain.space import is_active
from app.domain.study import StudyDefinition, trial_seed
from app.domain.trial import Reservation
from app.store.engine import Database
from app.tuning.declared import reseed
from app.tuning.distributions import distributions
from app.tuning.tpe import good_count
from app.tuning.trials import CONSTRAINT_PREFIX, Space
from app.tuning.view import StudyView

FLAT: dict[str, Any] = {
    "rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "share": {"type": "float", "low": 0.0, "high": 0.5},
    "units": {"type": "int", "low": 32, "high": 128, "step": 32},
    "width": {"type": "int", "low": 1, "high": 5000},
    "depth": {"type": "int", "low": 1, "high": 64, "log": True},
    "decay": {"type": "float", "low": 0.1, "high": 0.9, "step": 0.1},
    "kind": {"type": "categorical", "choices": ["a", "b", "c"]},
    "flag": {"type": "categorical", "choices": [True, False]},
}
CONDITIONAL: dict[str, Any] = {
    **{name: FLAT[name] for name in ("rate", "units", "flag")},
    "schedule": {"type": "categorical", "choices": ["constant", "step", "cosine"]},
    "floor": {"type": "float", "low": 0.1, "high": 0.9, "when": {"schedule": ["step"]}},
    "every": {"type": "int", "low": 1, "high": 5, "when": {"schedule": ["step"]}},
}
SPACES = {"flat": FLAT, "conditional": CONDITIONAL, "one": {"rate": FLAT["rate"]}, "choice": {"kind": FLAT["kind"]}}
RUNNING, ASKS = 9, 6
STARTED = datetime(2026, 1, 1)  # noqa: DTZ001 - Optuna's convention


def definition(space: str, directions: tuple[str, ...]) -> StudyDefinition:
    return StudyDefinition.model_validate(
        {
            "name": "parity",
            "model": {"family": "external"},
            "hyperparameters": SPACES[space],
            "objectives": [{"metric": f"value{i}", "direction": way} for i, way in enumerate(directions)],
            "sampler": {"name": "tpe", "options": {"seed": 7}},
            "budget": {"trials": 10},
        }
    )


def any_values(turns: random.Random, space: Space) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, parameter in space.parameters.items():
        if parameter.type == "categorical":
            values[name] = turns.choice(parameter.choices)
        elif parameter.log:
            value = math.exp(turns.uniform(math.log(parameter.low), math.log(parameter.high)))
            values[name] = min(max(value, parameter.low), parameter.high) if parameter.type == "float" else round(value)
        elif parameter.step is None:
            values[name] = turns.uniform(parameter.low, parameter.high)
        else:
            steps = round((parameter.high - parameter.low) / parameter.step)
            values[name] = parameter.low + turns.randint(0, steps) * parameter.step
    return {n: v for n, v in values.items() if is_active(space.parameters[n], values)}


def trial(number: int, state: TrialState, params: dict[str, Any], every: dict[str, BaseDistribution], **fields: Any):
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=None,
        params=params,
        distributions={name: every[name] for name in params},
        datetime_start=STARTED,
        datetime_complete=STARTED if state.is_finished() else None,
        user_attrs={},
        **{"values": None, "system_attrs": {}, "intermediate_values": {}, **fields},
    )


def history(study: StudyDefinition, finished: int, mixed: bool) -> Iterator[FrozenTrial]:
    """Finished trials, where `mixed` pruned and infeasible ones among them, and then running ones."""
    turns, space, every = random.Random(finished), Space(study), distributions(study)
    for number in range(finished):
        params = any_values(turns, space)
        values = [round(turns.gauss(0, 1), 1) for _ in study.objectives]  # ties too
        fate = turns.random() if mixed else 1.0
        if fate < 0.2 and len(values) == 1:
            reports = {step: turns.choice([math.nan, turns.random()]) for step in range(turns.randrange(4))}
            yield trial(number, TrialState.PRUNED, params, every, intermediate_values=reports)
        elif fate < 0.5:
            amount = turns.uniform(-1, 1)
            attributes = {f"{CONSTRAINT_PREFIX}0": amount}
            yield trial(number, TrialState.COMPLETE, params, every, values=values, system_attrs=attributes)
        elif fate < 0.6:
            yield trial(number, TrialState.FAIL, params, every)
        else:
            yield trial(number, TrialState.COMPLETE, params, every, values=values)
    for number in range(finished, finished + RUNNING):
        yield trial(number, TrialState.RUNNING, any_values(turns, space), every)


def ours(database: Database, study: StudyDefinition, trials: list[FrozenTrial]) -> list[dict[str, Any]]:
    view = StudyView(database, 1, study)
    for known in trials:
        if known.state is TrialState.RUNNING:
            view.adopt(known._trial_id, known.number, known.params, {})
        else:
            view._storage.add_lesson(known)
    asked = [Reservation(n, n, "token", 1, n) for n in range(len(trials), len(trials) + ASKS)]
    return [proposal.sampled for proposal in view.ask(asked)]


def theirs(
    study: StudyDefinition, trials: list[FrozenTrial], gamma: Callable[[int], int] | None = None
) -> list[dict[str, Any]]:
    every, space = distributions(study), Space(study)
    sampler = TPESampler(seed=7, multivariate=True, group=True, constant_liar=True)
    sampler._gamma = gamma
    peer = optuna.create_study(directions=[o.direction for o in study.objectives], sampler=sampler)
    peer.add_trials(trials)
    asked = []
    for number in range(len(trials), len(trials) + ASKS):
        reseed(sampler, trial_seed(7, number))
        suggested: dict[str, Any] = {}
        pending = peer.ask()
        for name, distribution in every.items():
            if is_active(space.parameters[name], suggested):
                suggested[name] = pending._suggest(name, distribution)
        # Optuna also counts what it drew for parameters whose conditions don't hold as running; here they are no part
        # of the trial.
        peer._storage.set_trial_system_attr(pending._trial_id, "tpe:relative_params:0", "")
        asked.append(suggested)
    return asked


def agree(mine: dict[str, Any], peer: dict[str, Any]) -> bool:
    """Equal but for rounding: the last digits of continuous values."""
    return list(mine) == list(peer) and all(
        math.isclose(mine[name], value, rel_tol=1e-7) if isinstance(value, float) else mine[name] == value
        for name, value in peer.items()
    )


@pytest.mark.parametrize("mixed", [False, True], ids=["complete", "mixed"])
@pytest.mark.parametrize("finished", [3, 10, 11, 40, 300, 1200])
@pytest.mark.parametrize("space", SPACES)
def test_same_seed_and_trials_same_proposals(sqlite_url: str, space: str, finished: int, mixed: bool) -> None:
    for direction in ("minimize", "maximize"):
        study = definition(space, (direction,))
        trials = list(history(study, finished, mixed))
        for mine, peer in zip(ours(Database(sqlite_url), study, trials), theirs(study, trials), strict=True):
            assert agree(mine, peer), (mine, peer)


@pytest.mark.parametrize("finished", [11, 60])
@pytest.mark.parametrize("mixed", [False, True], ids=["complete", "mixed"])
def test_the_same_holds_for_several_objectives(sqlite_url: str, finished: int, mixed: bool) -> None:
    study = definition("flat", ("minimize", "maximize"))
    trials = list(history(study, finished, mixed))
    for mine, peer in zip(ours(Database(sqlite_url), study, trials), theirs(study, trials), strict=True):
        assert agree(mine, peer), (mine, peer)


def test_beyond_sixteen_in_flight_only_the_number_of_good_trials_differs(sqlite_url: str) -> None:
    study = definition("flat", ("minimize",))
    trials = list(history(study, 300, mixed=True))
    turns, every = random.Random(5), distributions(study)
    more = range(len(trials), len(trials) + 30)
    trials += [trial(number, TrialState.RUNNING, any_values(turns, Space(study)), every) for number in more]
    finished = sum(known.state in (TrialState.COMPLETE, TrialState.PRUNED) for known in trials)
    asked = iter(range(RUNNING + len(more) + 1, 1000))
    mine = ours(Database(sqlite_url), study, trials)
    peer = theirs(study, trials, gamma=lambda n: good_count(n, next(asked)))
    assert good_count(finished, RUNNING + len(more)) < default_gamma(finished)
    for ours_, theirs_ in zip(mine, peer, strict=True):
        assert agree(ours_, theirs_), (ours_, theirs_)
