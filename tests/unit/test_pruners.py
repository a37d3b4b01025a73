"""Pruners: what a study may name, and decisions equal to Optuna's."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import TrialState

from app.domain.study import StudyDefinition
from app.tuning.bound import BoundStorage
from app.tuning.halving import Hyperband, RungValues, SuccessiveHalving, brackets_of
from app.tuning.options import OptionsError
from app.tuning.percentile import StepwisePercentilePruner, percentile
from app.tuning.pruners import build_pruner, pruner_compares, pruner_options, pruner_problems, pruners
from app.tuning.suggest import running_trial
from app.tuning.trials import Space

STEPS = 10


def study(pruner: str = "none", /, *, objectives: int = 1, epochs: int = STEPS, **options: Any) -> StudyDefinition:
    repeats = 3 if pruner == "wilcoxon" else 1
    return StudyDefinition.model_validate(
        {
            "name": "pruned",
            "model": {"family": "external"},
            "hyperparameters": {"x0": {"type": "float", "low": 0.0, "high": 1.0}},
            "training": {"epochs": epochs, "repeats": repeats},
            "objectives": [{"metric": f"value{i}"} for i in range(objectives)],
            "pruner": {"name": pruner, "options": options},
            "budget": {"trials": 10},
        }
    )


def reports(seed: int, trials: int = 60, at_once: int = 4) -> Iterator[tuple[int, int, float]]:
    """Trial, step and value of reports of trials that run side by side; now and then NaN."""
    turns = random.Random(seed)
    running: dict[int, int] = {}
    level = {number: turns.random() for number in range(trials)}
    started = 0
    while started < trials or running:
        if started < trials and len(running) < at_once:
            running[started] = 0
            started += 1
        number = turns.choice(sorted(running))
        step = running[number]
        value = math.nan if turns.random() < 0.02 else level[number] + turns.gauss(0, 0.1) - step / STEPS
        yield number, step, value
        running[number] += 1
        if running[number] == STEPS:
            del running[number]


def decisions_of_optuna(pruner: BasePruner, direction: str, seed: int) -> list[tuple[int, int]]:
    """The trials that Optuna prunes, and when, in a study of its own."""
    theirs = optuna.create_study(study_name="pruned", direction=direction, pruner=pruner)
    trials: dict[int, optuna.Trial] = {}
    pruned: list[tuple[int, int]] = []
    for number, step, value in reports(seed):
        if any(number == other for other, _ in pruned):
            continue
        while number >= len(trials):
            trials[len(trials)] = theirs.ask()
        trials[number].report(value, step)
        if trials[number].should_prune():
            pruned.append((number, step))
            theirs.tell(trials[number], state=TrialState.PRUNED)
        elif step == STEPS - 1:
            theirs.tell(trials[number], 0.0)
    return pruned


def decisions_of_ours(pruner: BasePruner, direction: str, seed: int) -> list[tuple[int, int]]:
    """The trials that a view's pruner prunes, and when."""
    space = Space(study())
    storage = BoundStorage(1, "pruned", [StudyDirection[direction.upper()]], lambda _, value: value)
    brackets = brackets_of(pruner)
    storage.rung_values = None if brackets is None else RungValues(brackets)
    ours = optuna.Study("pruned", storage, sampler=optuna.samplers.RandomSampler(), pruner=pruner)
    pruned: list[tuple[int, int]] = []
    begun: set[int] = set()

    def finish(number: int, state: TrialState) -> None:
        trial = storage.held.pop(number)
        trial.state = state
        storage.add_finished(trial)

    for number, step, value in reports(seed):
        if any(number == other for other, _ in pruned):
            continue
        if number not in begun:
            begun.add(number)
            storage.held[number] = running_trial(number, number, {}, space, {})
        storage.held[number].intermediate_values[step] = value
        if pruner.prune(ours, storage.held[number]):
            pruned.append((number, step))
            finish(number, TrialState.PRUNED)
        elif step == STEPS - 1:
            finish(number, TrialState.COMPLETE)
    return pruned


PAIRS: dict[str, tuple[Callable[[], BasePruner], Callable[[], BasePruner]]] = {
    "median": (
        lambda: optuna.pruners.MedianPruner(n_startup_trials=3),
        lambda: StepwisePercentilePruner(50.0, n_startup_trials=3),
    ),
    "percentile": (
        lambda: optuna.pruners.PercentilePruner(70.0, 2, 2, 3, n_min_trials=4),
        lambda: StepwisePercentilePruner(70.0, 2, 2, 3, n_min_trials=4),
    ),
    "halving": (
        lambda: optuna.pruners.SuccessiveHalvingPruner(1, 2, 0),
        lambda: SuccessiveHalving(1, 2, 0),
    ),
    "halving with bootstrap": (
        lambda: optuna.pruners.SuccessiveHalvingPruner(2, 3, 0, 2),
        lambda: SuccessiveHalving(2, 3, 0, 2),
    ),
    "hyperband": (
        lambda: optuna.pruners.HyperbandPruner(1, STEPS, 3),
        lambda: Hyperband("pruned", min_resource=1, max_resource=STEPS, reduction_factor=3),
    ),
    "patient": (
        lambda: optuna.pruners.PatientPruner(optuna.pruners.SuccessiveHalvingPruner(1, 2), 1),
        lambda: optuna.pruners.PatientPruner(SuccessiveHalving(1, 2), 1),
    ),
}


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("name", PAIRS)
def test_decisions_are_those_of_optuna(name: str, direction: str) -> None:
    theirs, ours = PAIRS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's and NumPy's, about NaN
        for seed in range(3):
            expected = decisions_of_optuna(theirs(), direction, seed)
            assert expected, "a test in which nothing is pruned shows nothing"
            assert decisions_of_ours(ours(), direction, seed) == expected


def test_percentiles_are_those_of_numpy() -> None:
    draws = random.Random(0)
    for _ in range(200):
        values = sorted(draws.gauss(0, 1) for _ in range(draws.randint(1, 30)))
        share = draws.uniform(0, 100)
        assert percentile(values, share) == np.percentile(values, share)


def test_every_pruner_has_a_schema_and_is_built_from_its_defaults() -> None:
    for choice in pruners():
        assert choice.options["additionalProperties"] is False
        options = {"upper": 1.0} if choice.name == "threshold" else {}
        definition = study(choice.name, objectives=2 if choice.name == "pareto" else 1, **options)
        assert pruner_problems(definition) == []
        assert (build_pruner(definition) is None) == (choice.name in ("none", "pareto"))


@pytest.mark.parametrize(
    ("name", "options", "loc", "words"),
    [
        ("magic", {}, ("pruner", "name"), "Expected a pruner among: none, median"),
        ("median", {"startup": 1}, ("pruner", "options", "startup"), "Expected one of the options"),
        ("median", {"n_startup_trials": "5"}, ("pruner", "options", "n_startup_trials"), "valid integer"),
        ("percentile", {"percentile": 101.0}, ("pruner", "options", "percentile"), "less than or equal to 100"),
        ("successive_halving", {"reduction_factor": 1}, ("pruner", "options", "reduction_factor"), "equal to 2"),
        ("threshold", {}, ("pruner", "options"), "Expected lower, upper or both"),
        ("patient", {"pruner": {"name": "m"}}, ("pruner", "options", "pruner", "name"), "Expected a pruner among"),
        (
            "patient",
            {"pruner": {"name": "median", "options": {"percentile": 1}}},
            ("pruner", "options", "pruner", "options", "percentile"),
            "Expected one of the options",
        ),
    ],
)
def test_options_that_mean_nothing_are_refused_at_their_place(
    name: str, options: dict[str, Any], loc: tuple[str, ...], words: str
) -> None:
    with pytest.raises(OptionsError) as caught:
        pruner_options(name, options)
    assert caught.value.errors[0].loc[: len(loc)] == loc
    assert words in caught.value.errors[0].msg


def test_pruners_in_one_another_end_somewhere() -> None:
    options: dict[str, Any] = {}
    for _ in range(50):
        options = {"pruner": {"name": "patient", "options": options}}
    with pytest.raises(OptionsError, match="in one another"):
        pruner_options("patient", options)


@pytest.mark.parametrize(
    ("name", "objectives", "options", "loc"),
    [
        ("median", 2, {}, ("pruner", "options")),
        ("median", 2, {"metric": "value7"}, ("pruner", "options", "metric")),
        ("median", 1, {"metric": "other"}, ("pruner", "options", "metric")),
        ("median", 1, {"rule": "all"}, ("pruner", "options", "rule")),
        ("median", 2, {"rule": "all", "metric": "value1"}, ("pruner", "options", "rule")),
        ("pareto", 1, {}, ("pruner", "name")),
        ("patient", 2, {"rule": "any", "pruner": {"name": "pareto"}}, ("pruner", "options", "pruner", "name")),
        (
            "patient",
            2,
            {"rule": "any", "pruner": {"name": "median", "options": {"rule": "any"}}},
            ("pruner", "options", "pruner", "options", "rule"),
        ),
    ],
)
def test_how_several_objectives_are_judged_must_be_said(
    name: str, objectives: int, options: dict[str, Any], loc: tuple[str, ...]
) -> None:
    definition = study(name, objectives=objectives).model_copy(
        update={"pruner": study().pruner.model_copy(update={"name": name, "options": options})}
    )
    assert [problem.loc for problem in pruner_problems(definition)] == [loc]


@pytest.mark.parametrize("options", [{"rule": "any"}, {"rule": "all"}, {"metric": "value1"}])
def test_every_pruner_of_one_objective_takes_several_if_told_how(options: dict[str, Any]) -> None:
    for choice in pruners():
        if choice.name not in ("none", "pareto"):
            more = {"upper": 1.0} if choice.name == "threshold" else {}
            assert pruner_problems(study(choice.name, objectives=2, **options, **more)) == []


def test_resources_that_no_trial_reaches_are_refused() -> None:
    assert pruner_problems(study("hyperband", epochs=5, min_resource=6))[0].loc == ("pruner", "options", "min_resource")
    inner = {"pruner": {"name": "hyperband", "options": {"min_resource": 9, "max_resource": 8}}}
    assert len(pruner_problems(study("patient", **inner))) == 1


def test_it_is_known_which_pruners_look_at_other_trials() -> None:
    assert pruner_compares(study("patient", pruner={"name": "median"}))
    assert not pruner_compares(study("patient"))
    assert not pruner_compares(study("threshold", lower=0.0))
    assert pruner_compares(study("hyperband"))


def test_checking_options_imports_no_optuna() -> None:
    code = """
import sys
from app.tuning import insight, pruners, samplers
pruners.pruner_options("median", {}), samplers.sampler_options("tpe", {}), pruners.pruners(), samplers.samplers()
assert "optuna" not in sys.modules and "numpy" not in sys.modules, "slow to import"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
