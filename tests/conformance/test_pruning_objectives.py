"""Pruning in studies of several objectives, by four workers: which trials it stops, and that all runs agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from app.domain.json import loads
from app.domain.trial import TrialState
from app.store import optuna as store
from app.store.engine import Database
from app.tuning.insight import pareto_front
from app.tuning.storage import StudyStorage
from app.tuning.tpe import good_of_several
from app.tuning.trials import read_curves
from app.tuning.view import StudyView
from tests.conformance.fleet import EPOCHS, Fleet, definition

SPACE: dict[str, Any] = {
    "x0": {"type": "float", "low": 0.0, "high": 1.0},
    "x1": {"type": "float", "low": 0.0, "high": 1.0},
}
BY_OBJECTIVE: dict[str, dict[str, Any]] = {
    "median": {"n_startup_trials": 3},
    "percentile": {"percentile": 60.0, "n_startup_trials": 3},
    "successive_halving": {"reduction_factor": 2},
    "hyperband": {"reduction_factor": 2},
    "threshold": {"upper": 1.6},
}


def trade(values: Mapping[str, Any]) -> tuple[float, ...]:
    """The front is at x1 = 0, where one objective is the price of the other."""
    return values["x0"] + values["x1"], 1.0 - values["x0"] + values["x1"]


def fleet(database: Database, pruner: str, project: str, objectives: int = 2, **options: Any) -> Fleet:
    study = definition(
        "random", pruner, pruner_options=options, space=SPACE, objectives=objectives, options={"seed": 4}
    )
    found = Fleet(database, study, project=project, judge=trade)
    found.run()
    return found


def by_state(fleet: Fleet, state: TrialState) -> list[tuple[float, ...]]:
    return [trade(fleet.proposals[n].hyperparameters) for n, found in fleet.states.items() if found is state]


def test_dominated_trials_are_stopped_and_the_front_is_not(database: Database) -> None:
    first = fleet(database, "pareto", "one", n_startup_trials=4)
    assert first.states == fleet(database, "pareto", "two", n_startup_trials=4).states
    complete, pruned = by_state(first, TrialState.COMPLETE), by_state(first, TrialState.PRUNED)
    assert len(pruned) >= 8
    assert len(complete) >= 8
    front = pareto_front(complete + pruned)
    assert not set(front) & set(pruned)
    mean = {len(found): sum(map(sum, found)) / len(found) for found in (complete, pruned)}
    assert mean[len(pruned)] > mean[len(complete)] or len(pruned) == len(complete)


@pytest.mark.parametrize("how", [{"rule": "any"}, {"rule": "all"}, {"metric": "value1"}])
@pytest.mark.parametrize("pruner", BY_OBJECTIVE)
def test_pruners_of_one_objective_judge_several_the_same_way_in_every_run(
    sqlite_database: Database, pruner: str, how: dict[str, Any]
) -> None:
    first = fleet(sqlite_database, pruner, "one", **BY_OBJECTIVE[pruner], **how)
    assert first.states == fleet(sqlite_database, pruner, "two", **BY_OBJECTIVE[pruner], **how).states
    assert by_state(first, TrialState.COMPLETE)
    assert by_state(first, TrialState.PRUNED) or (pruner, how) == ("successive_halving", {"rule": "all"})


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_pruner_that_judges_one_objective_stops_what_it_would_in_a_study_of_it_alone(
    sqlite_database: Database, pruner: str
) -> None:
    options = BY_OBJECTIVE[pruner]
    several = fleet(sqlite_database, pruner, "several", **options, metric="value0")
    alone = Fleet(
        sqlite_database,
        definition("random", pruner, pruner_options=options, space=SPACE, options={"seed": 4}),
        project="alone",
        judge=lambda values: trade(values)[0],
    )
    alone.run()
    assert several.states == alone.states
    assert TrialState.PRUNED in set(alone.states.values())


@pytest.mark.parametrize("pruner", ["pareto", "median"])
@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "nsgaiii"])
def test_samplers_learn_beside_pruned_trials(sqlite_database: Database, sampler: str, pruner: str) -> None:
    options = {"n_startup_trials": 4} if pruner == "pareto" else {"rule": "any", "n_startup_trials": 4}
    more = {"n_startup_trials": 5} if sampler == "tpe" else {"population_size": 6}
    study = definition(
        sampler, pruner, pruner_options=options, space=SPACE, objectives=2, trials=60, options={"seed": 4, **more}
    )
    first, second = (Fleet(sqlite_database, study, project=name, judge=trade) for name in ("one", "two"))
    first.run()
    second.run()
    assert first.sampled() == second.sampled()
    assert {TrialState.COMPLETE, TrialState.PRUNED} == set(first.states.values())
    far = [values["x1"] for values in first.sampled()]
    assert sum(far[30:]) / 30 < 0.8 * sum(far[:10]) / 10, "the front is at x1 = 0"


def test_pruned_trials_are_good_only_where_too_few_complete_ones_are(sqlite_database: Database) -> None:
    found = fleet(sqlite_database, "pareto", "one", n_startup_trials=4)
    view = found.views[0]
    view.sync()
    finished = view._storage.finished
    by_number = {trial.number: trial for trial in finished}
    complete = sum(trial.state.name == "COMPLETE" for trial in finished)
    for count in (1, complete, complete + 3):
        good = [by_number[number] for number in good_of_several(view._study, finished, count)]
        assert len(good) == count
        assert sum(trial.state.name == "PRUNED" for trial in good) == max(0, count - complete)
    assert [t.number for t in good] == sorted(t.number for t in good)
    taken = {trial.number for trial in good if trial.state.name == "PRUNED"}
    left = [len(t.intermediate_values) for t in finished if t.state.name == "PRUNED" and t.number not in taken]
    assert min(len(by_number[number].intermediate_values) for number in taken) >= max(left)


def test_any_stops_more_than_one_and_one_more_than_all(sqlite_database: Database) -> None:
    stopped = [
        len(by_state(fleet(sqlite_database, "threshold", str(i), upper=1.6, **how), TrialState.PRUNED))
        for i, how in enumerate(({"rule": "any"}, {"metric": "value0"}, {"rule": "all"}))
    ]
    assert stopped[0] > stopped[1] > stopped[2] > 0


def test_all_objectives_are_stored_by_epoch_and_optuna_sees_the_first(database: Database) -> None:
    found = fleet(database, "pareto", "default", n_startup_trials=4)
    with database.read() as session:
        rows = store.finished_after(session, found.study_id, 0)
    storage = StudyStorage(database.url.render_as_string(hide_password=False))
    seen = {trial.number: trial for trial in storage.get_all_trials(found.study_id)}
    for row in rows:
        final = trade(loads(row.sampled))
        curves = read_curves(row.curve, 2)
        assert list(curves) == list(range(len(curves)))
        for epoch, values in curves.items():
            assert values == tuple(value + (EPOCHS - 1 - epoch) / EPOCHS for value in final)
        assert seen[row.number].intermediate_values == {epoch: values[0] for epoch, values in curves.items()}
    storage.close()


def test_a_trial_of_another_process_is_judged_on(sqlite_database: Database) -> None:
    found = fleet(sqlite_database, "successive_halving", "one", reduction_factor=2, rule="any")
    view = StudyView(sqlite_database, found.study_id, found.definition)
    view.sync()
    key = "completed_rung_0"
    rungs = {key: 0.5, f"{key}@1": 0.25}
    view.adopt(10**6, 10**6, {"x0": 0.0, "x1": 0.0}, rungs, {1: (0.5, 0.25)})
    assert view.system_attributes(10**6) == rungs
    assert not view.report(10**6, 1, (9.0, 9.0)), "an epoch that was reported before"
    assert view.report(10**6, 2, (9.0, 0.0))
    assert view.system_attributes(10**6) == rungs | {"completed_rung_1": 9.0, "completed_rung_1@1": 0.0}
