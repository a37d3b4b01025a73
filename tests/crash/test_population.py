"""Populations on both databases: who goes on from whom depends on the results alone, whoever trains and dies."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.domain.json import loads
from app.domain.study import StudyDefinition
from app.store import lifecycle
from app.store.engine import Database
from app.store.trials import lineage
from app.tuning.samplers import most_trials
from tests.crash.test_checkpoints import files
from tests.store.conftest import Bench, definition
from tests.support.processes import Fleet, over, wait_for

SIZE, INTERVAL, EPOCHS = 8, 2, 7
TRIALS = SIZE * 4
COPIED = 2
"""A quarter of the members."""


@pytest.fixture
def make_population(database: Database) -> Callable[..., Bench]:
    """Makes a study of the sphere in two coordinates that a population of eight minimises."""

    def make(**changes: Any) -> Bench:
        coordinates = {name: {"type": "float", "low": -4.0, "high": 4.0} for name in ("x0", "x1")}
        delay = {"delay_seconds": changes.pop("delay_seconds", 0.0)}
        options = {"population_size": SIZE, "interval_epochs": INTERVAL} | changes.pop("options", {})
        body: dict[str, Any] = {
            "hyperparameters": {**coordinates, **delay},
            "training": {"epochs": EPOCHS, "select_epoch": "last"},
            "sampler": {"name": "pbt", "options": options},
            "budget": {"trials": 1000},
        }
        made: StudyDefinition = definition(**(body | changes))
        with database.write() as session:
            study = lifecycle.create_study(
                session, made, project="default", created_by=None, sample_limit=most_trials(made)
            )
        return Bench(database, study.id, study.public_id)

    return make


MakePopulation = Callable[..., Bench]


def sampled(bench: Bench) -> list[dict[str, float]]:
    return [loads(trial.sampled or "") for trial in bench.trials()]


def family_tree(bench: Bench) -> list[tuple[int | None, int]]:
    return [(trial.parent, trial.first_epoch) for trial in bench.trials()]


@pytest.mark.smoke
def test_the_worst_go_on_from_the_best_and_the_others_from_themselves(
    fleet: Fleet, make_population: MakePopulation, tmp_path: Path
) -> None:
    bench = make_population()
    fleet.start()
    assert over(bench) == "COMPLETED"
    assert bench.study().state_reason == "All 4 generations of 8 trials are done."
    trials, values = bench.trials(), sampled(bench)
    assert len(trials) == TRIALS
    assert {t.state for t in trials} == {"COMPLETE"}
    assert [t.epochs for t in trials] == [2] * 24 + [1] * 8  # the last generation reaches the seventh epoch
    copied = 0
    for trial in trials:
        number, generation = trial.number, trial.number // SIZE
        if generation == 0:
            assert (trial.parent, trial.first_epoch) == (None, 0)
            continue
        before = sorted(trials[(generation - 1) * SIZE : generation * SIZE], key=lambda t: (t.value or 0.0, t.number))
        ranks = {t.number: rank for rank, t in enumerate(before)}
        own = number - SIZE
        assert trial.parent is not None
        assert trial.first_epoch == generation * INTERVAL
        if ranks[own] < SIZE - COPIED:
            assert (trial.parent, values[number]) == (own, values[own])
        else:
            copied += 1
            assert ranks[trial.parent] < COPIED
            for name, value in values[number].items():
                before_it = values[trial.parent][name]
                assert -4.0 <= value <= 4.0
                if value not in (pytest.approx(0.8 * before_it), pytest.approx(1.2 * before_it)):
                    assert value != before_it  # drawn anew, or held at a bound
    assert copied == 3 * COPIED
    started = {e["trial"]: e for e in bench.events() if e["type"] == "trial.started"}
    assert {n: (e.get("parent"), e.get("first_epoch", 0)) for n, e in started.items()} == dict(
        enumerate(family_tree(bench))
    )
    # The segments of a line follow one another: epoch e of the line is (E - 1 - e) / E above the function.
    last = min(trials[-SIZE:], key=lambda t: t.value or 0.0)
    told = {(e["trial"], e["epoch"]): e["metrics"]["value"] for e in bench.events() if e["type"] == "trial.metrics"}
    with bench.database.read() as session:
        line = lineage(session, bench.study_id, last.number)
    assert [t.first_epoch for t in line] == [0, 2, 4, 6]
    assert [t.number for t in line] == [*(t.parent for t in line[1:]), last.number]
    for segment in line:
        point = sum(v * v for v in values[segment.number].values())
        for epoch in range(segment.epochs):
            expected = point + (EPOCHS - 1 - segment.first_epoch - epoch) / EPOCHS
            assert told[segment.number, epoch] == pytest.approx(expected)
    wait_for(lambda: not files(tmp_path), what="no state is left once no trial can go on from it")
    bench.check()


def test_two_workers_of_which_one_is_killed_train_the_same_population(
    fleet: Fleet, make_population: MakePopulation
) -> None:
    calm = make_population(name="calm")
    first = fleet.start()
    assert over(calm) == "COMPLETED"
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    # The same definition but for the delay, which nothing depends on: both workers get a share of every generation.
    rough = make_population(name="rough", delay_seconds=0.15, execution={"parallel_trials": 6})
    victim = fleet.start(lease_ttl_s=1, checkpoint_interval_s=0.2)
    other = fleet.start(lease_ttl_s=1, checkpoint_interval_s=0.2)
    wait_for(lambda: rough.study().complete >= SIZE + 1, what="the second generation")
    wait_for(lambda: rough.study().running >= 2, what="trials in training")
    victim.signal(signal.SIGKILL)
    assert over(rough) == "COMPLETED"
    assert other.process.poll() is None
    assert family_tree(rough) == family_tree(calm)
    assert sampled(rough) == sampled(calm)
    assert [t.value for t in rough.trials()] == [t.value for t in calm.trials()]
    assert {t.state for t in rough.trials()} == {"COMPLETE"}
    rough.check()


def test_a_member_that_fails_goes_on_from_a_better_one(fleet: Fleet, make_population: MakePopulation) -> None:
    bench = make_population(delay_seconds=0.1)
    fleet.start()
    wait_for(lambda: len(bench.trials()) == SIZE and all(t.state == "RUNNING" for t in bench.trials()), what="a start")
    bench.act(lifecycle.cancel_trial, 3)
    assert over(bench) == "COMPLETED"
    trials = bench.trials()
    assert (trials[3].state, trials[3].reason) == ("FAIL", "CANCELLED")
    assert len(trials) == TRIALS
    assert trials[3 + SIZE].parent not in (None, 3)
    assert trials[3 + 2 * SIZE].first_epoch == 2 * INTERVAL
    assert sum(t.state == "COMPLETE" for t in trials) == TRIALS - 1
    bench.check()


def test_a_population_stopped_by_its_budget_goes_on_where_it_was(fleet: Fleet, make_population: MakePopulation) -> None:
    bench = make_population(budget={"trials": SIZE + 3})
    fleet.start()
    assert over(bench) == "COMPLETED"
    assert len(bench.trials()) == SIZE + 3
    made = StudyDefinition.model_validate_json(bench.study().definition or "")
    larger = made.model_copy(update={"budget": made.budget.model_copy(update={"trials": 1000})})
    bench.act(lifecycle.update_study, larger)
    assert over(bench) == "COMPLETED"
    assert len(bench.trials()) == TRIALS
    assert {t.state for t in bench.trials()} == {"COMPLETE"}
    bench.check()
