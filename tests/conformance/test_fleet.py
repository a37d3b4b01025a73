"""Four workers with views of their own propose as one: nothing twice, and the same in every run."""

from __future__ import annotations

import pytest

from app.domain.trial import FailureReason, TrialState
from app.store.engine import Database
from tests.conformance.fleet import GP, GRID, SPACE, Fleet, bowl, definition

SAMPLERS = ["tpe", "random", "qmc", "nsgaii", GP]
PRUNERS = {
    "median": {"n_startup_trials": 3},
    "percentile": {"percentile": 60.0, "n_startup_trials": 3},
    "successive_halving": {"reduction_factor": 2},
    "hyperband": {"reduction_factor": 2},
    "patient": {"patience": 1, "pruner": {"name": "median", "options": {"n_startup_trials": 3}}},
    "threshold": {"upper": 1.2},
}
OPTIONS = {"nsgaii": {"population_size": 8}, "tpe": {"n_startup_trials": 5}, "gp": {"n_startup_trials": 5}}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_proposals_are_distinct_and_the_same_in_every_run(database: Database, sampler: str) -> None:
    trials = 16 if sampler == "gp" else 40
    study = definition(sampler, options=OPTIONS.get(sampler), trials=trials)
    first, second = Fleet(database, study, project="one"), Fleet(database, study, project="two")
    first.run()
    second.run()
    distinct = len({tuple(values.items()) for values in first.sampled()})
    # A genetic algorithm may repeat a parent: crossover without mutation.
    assert distinct == trials if sampler != "nsgaii" else distinct >= 36
    assert first.sampled() == second.sampled()


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_proposals_of_samplers_that_do_not_learn_are_the_same_whoever_asks(
    sqlite_database: Database, sampler: str
) -> None:
    fleet, alone = (Fleet(sqlite_database, definition(sampler), project=str(size), size=size) for size in (4, 1))
    fleet.run(seed=1)
    alone.run(seed=2)
    assert fleet.sampled() == alone.sampled()


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", GP])
def test_workers_that_have_seen_the_same_trials_propose_the_same(sqlite_database: Database, sampler: str) -> None:
    fleet = Fleet(sqlite_database, definition(sampler, options=OPTIONS.get(sampler), trials=60), size=2)
    while len(fleet.proposals) < (10 if sampler == "gp" else 30):
        for trial in fleet.ask(0, 1):
            while trial.reservation.trial_id in fleet.running[0]:
                fleet.advance(0, trial.reservation.trial_id)
    [proposal] = fleet.ask(0, 1)
    fleet.views[0].forget(proposal.reservation.trial_id)
    late = fleet.views[1]
    late.sync()
    late.forget(proposal.reservation.trial_id)
    late._storage.elsewhere.clear()
    [again] = late.ask([proposal.reservation])
    assert again.sampled == proposal.sampled


def test_a_grid_is_walked_once_in_full_by_four_workers(database: Database) -> None:
    study = definition("grid", space=GRID, trials=1000)
    first, second = Fleet(database, study, project="one"), Fleet(database, study, project="two")
    first.run()
    second.run(seed=3)
    assert len({tuple(values.items()) for values in first.sampled()}) == len(first.sampled()) == 9 * 5 * 2
    assert first.sampled() == second.sampled()


@pytest.mark.parametrize("pruner", PRUNERS)
def test_pruners_stop_bad_trials_the_same_way_in_every_run(database: Database, pruner: str) -> None:
    study = definition("random", pruner, pruner_options=PRUNERS[pruner])
    first, second = Fleet(database, study, project="one"), Fleet(database, study, project="two")
    first.run()
    second.run()
    assert first.states == second.states
    ended = {state: [n for n, s in first.states.items() if s is state] for state in TrialState}
    assert ended[TrialState.COMPLETE]
    if pruner != "patient":
        # Values fall in every epoch here, so that patience is never lost.
        assert ended[TrialState.PRUNED]
        mean = {
            state: sum(bowl(first.proposals[n].hyperparameters) for n in numbers) / len(numbers)
            for state, numbers in ended.items()
            if numbers
        }
        assert mean[TrialState.PRUNED] > mean[TrialState.COMPLETE]


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "random"])
def test_several_objectives_are_sampled_and_never_pruned(sqlite_database: Database, sampler: str) -> None:
    fleet = Fleet(sqlite_database, definition(sampler, options=OPTIONS.get(sampler), objectives=2))
    fleet.run()
    assert set(fleet.states.values()) == {TrialState.COMPLETE}


@pytest.mark.parametrize("sampler", ["tpe", GP, "nsgaii"])
def test_samplers_leave_a_region_that_always_runs_out_of_memory(sqlite_database: Database, sampler: str) -> None:
    def judge(values: dict[str, object]) -> float | FailureReason:
        return FailureReason.OUT_OF_MEMORY if values["x0"] > 0.0 else bowl(values)  # type: ignore[operator]

    space = {name: SPACE[name] for name in ("x0", "x2", "kind")}
    study = definition(sampler, options=OPTIONS.get(sampler), space=space, trials=24 if sampler == "gp" else 60)
    fleet = Fleet(sqlite_database, study, judge=judge)  # type: ignore[arg-type]
    fleet.run()
    late = [values["x0"] > 0.0 for values in fleet.sampled()[len(fleet.proposals) // 3 :]]
    # The best value lies just inside the failing half: told nothing, a sampler would go there.
    assert sum(late) < len(late) / 2


def test_conditional_parameters_are_drawn_where_their_conditions_hold(sqlite_database: Database) -> None:
    for sampler in ("tpe", "random", "qmc", "nsgaii"):
        fleet = Fleet(sqlite_database, definition(sampler), project=sampler)
        fleet.run()
        assert {("x3" in values, values["kind"] in "bc") for values in fleet.sampled()} == {
            (True, True),
            (False, False),
        }
