"""Asks for many trials at once: what they may repeat, what they depend on, what they cost."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState

from app.domain.study import StudyDefinition
from app.domain.trial import Proposal, Reservation
from app.store.engine import Database
from app.tuning.bound import BoundStorage
from app.tuning.tpe import MOST_GOOD, PARALLEL, good_count
from app.tuning.trials import Space
from app.tuning.view import StudyView

PLANE: dict[str, Any] = {f"x{i}": {"type": "float", "low": -1.0, "high": 1.0} for i in range(2)}
MIXED: dict[str, Any] = {
    **PLANE,
    "units": {"type": "int", "low": 32, "high": 128, "step": 32},
    "kind": {"type": "categorical", "choices": ["a", "b", "c"]},
    "decay": {"type": "float", "low": 0.1, "high": 0.9, "when": {"kind": ["b", "c"]}},
}
GRID: dict[str, Any] = {
    "x0": {"type": "float", "low": -1.0, "high": 1.0, "step": 0.25},
    "kind": {"type": "categorical", "choices": ["a", "b", "c", "d"]},
    "units": {"type": "int", "low": 1, "high": 3},
}


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    database = Database(sqlite_url)
    yield database
    database.dispose()


def study(sampler: str, space: dict[str, Any]) -> StudyDefinition:
    return StudyDefinition.model_validate(
        {
            "name": "batched",
            "model": {"family": "external"},
            "hyperparameters": space,
            "objectives": [{"metric": "value"}],
            "sampler": {"name": sampler, "options": {"seed": 3}},
            "budget": {"trials": 10},
        }
    )


def reserve(numbers: range) -> list[Reservation]:
    return [Reservation(n, n, f"token{n}", 1, n) for n in numbers]


def finish(view: StudyView, number: int, params: dict[str, Any], value: float, space: Space) -> None:
    """Let the view see a finished trial, as `sync` would."""
    trial = FrozenTrial(
        number=number,
        trial_id=number,
        state=TrialState.COMPLETE,
        value=value,
        params=params,
        distributions={name: space.distributions[name] for name in params},
        datetime_start=None,
        datetime_complete=None,
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )
    view.forget(number)
    view._storage.add_lesson(trial)


def grown(database: Database, definition: StudyDefinition, finished: int) -> StudyView:
    """A view that has seen so many finished trials, drawn at random; smaller |x0| + |x1| is better."""
    view, space, turns = StudyView(database, 1, definition), Space(definition), random.Random(0)
    for number in range(finished):
        params: dict[str, Any] = {name: turns.uniform(-1, 1) for name in PLANE}
        if "kind" in space.parameters:
            params |= {"units": turns.choice([32, 64, 96, 128]), "kind": turns.choice("abc")}
            params |= {"decay": turns.uniform(0.1, 0.9)} if params["kind"] != "a" else {}
        finish(view, number, params, abs(params["x0"]) + abs(params["x1"]), space)
    return view


def points(proposals: list[Proposal]) -> np.ndarray[Any, Any]:
    return np.array([[proposal.sampled[name] for name in PLANE] for proposal in proposals])


# Nothing twice


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("sampler", "space", "trials"), [("grid", GRID, 108), ("qmc", MIXED, 128)])
def test_grids_and_sequences_repeat_nothing_whatever_the_batches(
    database: Database, sampler: str, space: dict[str, Any], trials: int, seed: int
) -> None:
    views, turns = [StudyView(database, 1, study(sampler, space)) for _ in range(3)], random.Random(seed)
    batches, start = [], 0
    while start < trials:
        end = min(trials, start + turns.randint(1, 20))
        batches.append(range(start, end))
        start = end
    turns.shuffle(batches)
    asked = [proposal for batch in batches for proposal in turns.choice(views).ask(reserve(batch))]
    drawn = {proposal.reservation.number: tuple(proposal.sampled.items()) for proposal in asked}
    assert len(set(drawn.values())) == trials
    [alone] = StudyView(database, 1, study(sampler, space)).ask(reserve(range(trials - 1, trials)))
    assert drawn[trials - 1] == tuple(alone.sampled.items())


# The constant liar


def test_proposals_of_a_batch_differ_and_follow_from_those_before_them(database: Database) -> None:
    definition = study("tpe", PLANE)
    batch = grown(database, definition, 100).ask(reserve(range(100, 132)))
    alone = grown(database, definition, 100)
    apart = []
    for number in range(100, 132):
        apart += alone.ask(reserve(range(number, number + 1)))
        alone.forget(number)
    assert len({tuple(proposal.sampled.items()) for proposal in batch}) == 32
    assert batch[0].sampled == apart[0].sampled
    changed = [mine.sampled != its.sampled for mine, its in zip(batch[1:], apart[1:], strict=True)]
    assert sum(changed) > 16


def test_a_batch_spreads_farther_than_proposals_that_know_nothing_of_each_other(database: Database) -> None:
    def nearest(found: np.ndarray[Any, Any]) -> float:
        gaps = np.linalg.norm(found[:, None] - found[None], axis=-1)
        return float(np.median(np.where(np.eye(len(found), dtype=bool), np.inf, gaps).min(axis=1)))

    definition = study("tpe", PLANE)
    batch = points(grown(database, definition, 100).ask(reserve(range(100, 116))))
    view, apart = grown(database, definition, 100), []
    for number in range(100, 116):
        apart += view.ask(reserve(range(number, number + 1)))
        view.forget(number)
    assert nearest(batch) > nearest(points(apart))


def test_trials_that_run_at_the_best_place_keep_others_away_from_it(database: Database) -> None:
    definition = study("tpe", PLANE)
    free, crowded = grown(database, definition, 100), grown(database, definition, 100)
    turns = random.Random(1)
    for number in range(100, 115):
        crowded.adopt(number, number, {name: turns.gauss(0, 0.02) for name in PLANE}, {})
    distances = []
    for view in (free, crowded):
        found = []
        for number in range(200, 240):
            found += view.ask(reserve(range(number, number + 1)))
            view.forget(number)
        distances.append(float(np.median(np.linalg.norm(points(found), axis=1))))
    assert distances[1] > distances[0]


def test_the_order_in_which_a_worker_learns_of_trials_changes_nothing(database: Database) -> None:
    definition = study("tpe", MIXED)
    space, drawn = Space(definition), []
    known = grown(database, definition, 60)._storage.lessons
    for order in (known, known[::-1], random.Random(2).sample(known, len(known))):
        view = StudyView(database, 1, definition)
        for i, trial in enumerate(order):
            finish(view, trial.number, trial.params, trial.values[0], space)
            if i == 30:
                view.ask(reserve(range(90, 94)))  # half-way: what was asked then is over later
        for number in range(90, 94):
            view.forget(number)
        drawn.append([proposal.sampled for proposal in view.ask(reserve(range(100, 124)))])
    assert drawn[0] == drawn[1] == drawn[2]


# Good trials


def test_good_trials_are_optunas_up_to_sixteen_in_flight_and_fewer_beyond() -> None:
    from optuna.samplers._tpe.sampler import default_gamma

    for finished, parallel in itertools.product((0, 1, 9, 10, 11, 99, 249, 250, 10_000), range(1, PARALLEL + 1)):
        assert good_count(finished, parallel) == default_gamma(finished)
    assert [good_count(150, parallel) for parallel in (16, 17, 32, 48, 64)] == [15, 15, 8, 5, 4]
    assert good_count(1, 1000) == 1
    assert good_count(10**6, 64) == MOST_GOOD


def test_the_number_of_good_trials_follows_what_is_in_flight(database: Database) -> None:
    definition = study("tpe", PLANE)
    view = grown(database, definition, 200)
    view.ask(reserve(range(200, 248)))
    assert len(view._storage.held) == 48
    view.ask(reserve(range(248, 249)))
    assert len(view._sampler._good) == good_count(200, 49) == 7
    best = sorted(view._storage.lessons, key=lambda trial: trial.values[0])[:7]
    assert view._sampler._good == sorted(trial.number for trial in best)


# Cost


def calls(work: Callable[[], object]) -> int:
    """How many Python functions `work` calls."""
    count = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_an_ask_touches_no_finished_trial_that_was_seen_before(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    read_all = BoundStorage.get_all_trials

    def counted(storage: BoundStorage, *args: Any, **options: Any) -> list[FrozenTrial]:
        found = read_all(storage, *args, **options)
        reads.append(len(found))
        return found

    monkeypatch.setattr(BoundStorage, "get_all_trials", counted)
    made = {}
    for finished in (200, 20_000):
        view = grown(database, study("tpe", MIXED), finished)
        view.ask(reserve(range(finished, finished + 32)))
        following = reserve(range(finished + 32, finished + 40))
        made[finished] = calls(lambda view=view, following=following: view.ask(following))
        assert view._storage.held.keys() >= {reservation.trial_id for reservation in following}
    assert reads == []
    # No list of trials, and no call a trial: those that there are come from the 40 that run.
    assert made[20_000] < made[200] + 200
