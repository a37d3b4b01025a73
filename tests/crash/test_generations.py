"""Deterministic studies under real workers: the same trials whatever the timing, and none lost when something dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from app.domain.json import loads
from tests.store.conftest import Bench
from tests.support.processes import Fleet, over, wait_for

MakeStudy = Callable[..., Bench]

LEARNING: dict[str, Any] = {
    "hyperparameters": {
        "x0": {"type": "float", "low": -1.0, "high": 1.0},
        "x1": {"type": "float", "low": -1.0, "high": 1.0},
        "function": {"type": "categorical", "choices": ["sphere", "rastrigin"]},
    },
    "training": {"epochs": 6, "select_epoch": "last", "deterministic": True},
    "execution": {"parallel_trials": 5},
}


def found(bench: Bench) -> list[Any]:
    return [
        (t.number, t.state, loads(t.sampled or ""), t.objective_values, t.curve, t.finish_seq) for t in bench.trials()
    ]


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii"])
@pytest.mark.parametrize("pruner", ["median", "successive_halving"])
def test_trials_do_not_depend_on_how_fast_they_are_or_how_many_workers_there_are(
    fleet: Fleet, make_study: MakeStudy, sampler: str, pruner: str
) -> None:
    options = {"tpe": {"n_startup_trials": 5}, "nsgaii": {"population_size": 8}}[sampler]
    runs = []
    for name, workers, delay in (("quick", 1, 0.0), ("slow", 1, 0.01), ("shared", 2, 0.0)):
        space = LEARNING["hyperparameters"] | {"delay_seconds": delay}
        changes = LEARNING | {"hyperparameters": space, "name": f"{name}-{sampler}-{pruner}"}
        bench = make_study(trials=33, sampler={"name": sampler, "options": options}, pruner={"name": pruner}, **changes)
        started = [fleet.start() for _ in range(workers)]
        assert over(bench) == "COMPLETED"
        bench.check()
        runs.append((bench.study().best_number, found(bench)))
        for worker in started:
            worker.terminate()
            assert worker.wait() == 0
    assert runs[0] == runs[1]
    assert runs[0] == runs[2]
    assert {"COMPLETE", "PRUNED"} <= {state for _, state, *_ in runs[0][1]}


def test_a_generation_whose_worker_dies_is_finished_by_another(fleet: Fleet, make_study: MakeStudy) -> None:
    training = {"epochs": 8, "select_epoch": "last", "deterministic": True}
    bench = make_study(trials=7, delay_seconds=0.1, training=training, execution={"parallel_trials": 3})
    victim = fleet.start(lease_ttl_s=1)
    wait_for(lambda: bench.study().complete >= 3 and bench.study().running > 0, what="the second generation")
    victim.signal(signal.SIGKILL)
    fleet.start(lease_ttl_s=1)
    assert over(bench) == "COMPLETED"
    assert [t.state for t in bench.trials()] == ["COMPLETE"] * 7
    assert [t.attempt for t in bench.trials()[:3]] == [1, 1, 1]
    bench.check()


def test_a_trainer_that_dies_in_a_generation_loses_no_trial(fleet: Fleet, make_study: MakeStudy) -> None:
    training = {"epochs": 10, "select_epoch": "last", "deterministic": True}
    bench = make_study(trials=6, delay_seconds=0.1, training=training, execution={"parallel_trials": 3})
    worker = fleet.start()
    wait_for(lambda: bench.study().running == 3, what="a generation in training")
    os.kill(worker.trainer_pid(), signal.SIGKILL)
    assert over(bench) == "COMPLETED"
    assert [t.state for t in bench.trials()] == ["COMPLETE"] * 6
    assert [t.charged for t in bench.trials()] == [0] * 6
    bench.check()
