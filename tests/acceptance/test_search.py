"""Searches with a real service and a real trainer: five levels of conditions, two objectives with pruning, duplicates,
a warm start, and a trial that is asked for.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.client import FettleClient
from app.domain.space import is_active
from app.domain.study import StudyDefinition
from app.tuning.insight import best_trials
from tests.support.processes import ROOT, wait_for

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(300)]

DEEP: dict[str, Any] = {
    "batch_size": 64,
    "hidden_layers": 1,
    "units": 8,
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
    "nesterov": {"type": "categorical", "choices": [True, False], "when": {"optimizer": ["sgd"]}},
    "momentum": {
        "type": "categorical",
        "choices": [0.5, 0.9],
        "ordered": True,
        "when": {"nesterov": [True], "hidden_layers": [1]},
    },
    "lr_schedule": {"type": "categorical", "choices": ["constant", "step"], "when": {"momentum": [0.5, 0.9]}},
    "decay_rate": {
        "type": "float", "low": 0.1, "high": 0.9, "when": {"lr_schedule": ["step"], "optimizer": ["sgd"]}
    },
}  # fmt: skip


def study(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "model": {"family": "mlp"},
        "dataset": {"name": "wine"},
        "hyperparameters": DEEP,
        "training": {"epochs": 2},
        "objectives": [{"metric": "val_loss"}],
        "sampler": {"name": "random"},
        "budget": {"trials": 24},
        "execution": {"keep_models": "none"},
    } | changes


def run(client: FettleClient, definition: dict[str, Any]) -> tuple[Any, list[Any]]:
    created = client.create_study(definition)
    for _ in client.events(created.id):
        pass
    return client.study(created.id), list(client.trials(created.id))


@pytest.mark.parametrize("sampler", ["random", "tpe", "qmc", "nsgaii", "nsgaiii"])
def test_five_levels_of_conditions_are_trained(client: FettleClient, sampler: str) -> None:
    over, trials = run(client, study(f"deep-{sampler}", sampler={"name": sampler}))
    assert over.progress.complete == 24
    searched = StudyDefinition.model_validate(over.definition).searched
    fixed = {"hidden_layers": 1}
    for trial in trials:
        for name, parameter in searched.items():
            assert (name in trial.sampled) == is_active(parameter, {**fixed, **trial.sampled})
        assert trial.hyperparameters["decay_rate"] == trial.sampled.get("decay_rate", 0.5)
    assert {len(trial.sampled) for trial in trials} >= {1, 2, 4}


def test_the_example_of_two_objectives_prunes_and_gives_a_front(client: FettleClient) -> None:
    definition = json.loads((ROOT / "examples" / "multi-objective.json").read_text())
    over, trials = run(client, definition | {"name": "front", "budget": {"trials": 40}})
    assert over.state == "COMPLETED"
    assert over.progress.fail == 0
    pruned = [trial for trial in trials if trial.state == "PRUNED"]
    complete = [trial for trial in trials if trial.state == "COMPLETE"]
    assert pruned
    assert len(complete) >= 8
    assert all(trial.epochs > 2 for trial in pruned)
    front = {trial.number for trial in client.best(over.id)}
    asked = [Finished(t.number, t.feasible, [t.values["val_accuracy"], t.values["parameter_count"]]) for t in complete]
    assert front == {t.number for t in best_trials(asked, ["maximize", "minimize"])}
    assert len(front) >= 2
    # What was pruned was not about to be the smallest: nothing dominates a smallest model but as small a better one.
    smallest = min(trial.values["parameter_count"] for trial in complete)
    assert any(trial.values["parameter_count"] == smallest for trial in complete if trial.number in front)


class Finished:
    """A trial as `best_trials` takes it."""

    state = "COMPLETE"

    def __init__(self, number: int, feasible: bool | None, values: list[float]) -> None:
        self.number, self.feasible, self.values = number, feasible, values


@pytest.mark.smoke
def test_each_objective_is_judged_by_itself(client: FettleClient) -> None:
    definition = study(
        "by-rule",
        dataset={"name": "digits"},
        hyperparameters={
            "units": {"type": "categorical", "choices": [8, 256], "ordered": True},
            "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
        },
        training={"epochs": 4},
        objectives=[{"metric": "val_accuracy", "direction": "maximize"}, {"metric": "parameter_count"}],
        pruner={"name": "threshold", "options": {"metric": "parameter_count", "upper": 10_000.0}},
    )
    over, trials = run(client, definition)
    assert {(t.sampled["units"], t.state) for t in trials} == {(8, "COMPLETE"), (256, "PRUNED")}
    assert {t.epochs for t in trials if t.state == "PRUNED"} == {1}
    assert {t.sampled["units"] for t in client.best(over.id)} == {8}


def test_a_small_space_is_trained_once_in_full(client: FettleClient) -> None:
    space = {"units": {"type": "categorical", "choices": [4, 8], "ordered": True}, "batch_size": 64,
             "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
             "nesterov": {"type": "categorical", "choices": [True, False], "when": {"optimizer": ["sgd"]}}}  # fmt: skip
    once, trials = run(client, study("once", hyperparameters=space, execution={"duplicates": "resample"}))
    assert (once.state, once.progress.complete) == ("COMPLETED", 6)
    assert len({json.dumps(t.sampled, sort_keys=True) for t in trials}) == 6
    reusing, trials = run(client, study("reusing", hyperparameters=space, execution={"duplicates": "reuse"}))
    assert reusing.progress.complete == 24
    reused = [t for t in trials if t.reused_from is not None]
    for trial in reused:
        assert trial.values == trials[trial.reused_from].values
    assert {t.reused_from is None for t in trials if client.metrics(reusing.id, t.number)} == {True}


def test_a_study_starts_from_what_another_one_found(client: FettleClient) -> None:
    space = {"learning_rate": {"type": "float", "low": 1e-6, "high": 1.0, "log": True}, "units": 8, "batch_size": 64}
    shape = {"hyperparameters": space, "dataset": {"name": "digits"}, "training": {"epochs": 3}}
    source, _ = run(client, study("source", **shape, budget={"trials": 40}))
    warm = study(
        "warm", **shape, sampler={"name": "tpe"}, budget={"trials": 8}, warm_start={"studies": ["source"]},
    )  # fmt: skip
    assert "40 of 40 complete trials" in client.validate(warm).warnings[-1]
    over, trials = run(client, warm)
    assert over.definition["warm_start"]["studies"] == [source.id]
    by_value = sorted(client.trials(source.id), key=lambda t: t.values["val_loss"])
    assert sorted(t.values["val_loss"] for t in trials)[4] < by_value[20].values["val_loss"]


def test_a_trial_asked_for_in_part_is_trained(client: FettleClient) -> None:
    created = client.create_study(study("asked", budget={"trials": 1000}, sampler={"name": "tpe"}))
    asked = client.enqueue(created.id, {"optimizer": "sgd", "nesterov": True, "momentum": 0.9})
    wait_for(lambda: client.trial(created.id, asked.number).state == "COMPLETE", 60, "the trial's end")
    client.cancel(created.id)
    trial = client.trial(created.id, asked.number)
    assert trial.sampled["momentum"] == 0.9
    assert "lr_schedule" in trial.sampled
