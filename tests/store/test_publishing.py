"""Which trials' files a study keeps: the best one's, or those of the Pareto front."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import select

from app.domain.objective import pareto_front
from app.domain.trial import ArtifactPointer, Outcome, Reservation
from app.store import recording
from app.store.tables import Artifact, Trial
from tests.store.conftest import TTL_S, Bench, complete

TWO = [{"metric": "value"}, {"metric": "score", "direction": "maximize"}]


def outcome(reservation: Reservation, values: Sequence[float], *, feasible: bool = True) -> Outcome:
    files = tuple(
        ArtifactPointer(name, f"{reservation.number}/{name}", "text/plain", 1) for name in ("model.keras", "recipe.py")
    )
    violations = () if feasible else (1.0,)
    return complete(reservation, values=tuple(values), artifacts=files, violations=violations)


def finish(bench: Bench, *outcomes: Outcome) -> list[str]:
    """The paths that nothing points to any more."""
    with bench.database.write() as session:
        return recording.finish(session, bench.study_id, outcomes, [], TTL_S).superseded_paths


def kept(bench: Bench) -> set[int]:
    """The numbers of the trials that have files; each has both."""
    with bench.database.read() as session:
        rows = session.execute(select(Trial.number, Artifact.name).join(Artifact, Artifact.trial_id == Trial.id)).all()
    numbers = [row.number for row in rows]
    assert all(numbers.count(number) == 2 for number in numbers)
    return set(numbers)


def paths(*numbers: int) -> set[str]:
    return {f"{number}/{name}" for number in numbers for name in ("model.keras", "recipe.py")}


def test_a_front_keeps_its_own_files_and_gives_up_those_that_it_leaves_behind(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(objectives=TWO, budget={"trials": 9})
    r = bench.running(7)
    assert finish(bench, outcome(r[0], (2.0, 2.0))) == []
    assert finish(bench, outcome(r[1], (1.0, 1.0))) == []
    assert kept(bench) == {0, 1}
    assert set(finish(bench, outcome(r[2], (3.0, 1.5)))) == paths(2)  # dominated from the start
    assert set(finish(bench, outcome(r[3], (2.0, 4.0)))) == paths(0)
    assert finish(bench, outcome(r[4], (2.0, 4.0))) == []  # the same values: none dominates the other
    assert kept(bench) == {1, 3, 4}
    assert set(finish(bench, outcome(r[5], (0.0, 9.0), feasible=False))) == paths(5)
    assert set(finish(bench, outcome(r[6], (0.5, 5.0)))) == paths(1, 3, 4)
    assert kept(bench) == {6}
    bench.check()


def test_of_trials_that_end_together_the_front_stays(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(objectives=TWO, budget={"trials": 9})
    r = bench.running(4)
    together = [outcome(one, v) for one, v in zip(r, [(1.0, 1.0), (2.0, 0.5), (2.0, 3.0), (1.5, 0.9)], strict=True)]
    assert set(finish(bench, *together)) == paths(1, 3)
    assert kept(bench) == {0, 2}


@pytest.mark.parametrize("keep", ["best", "all"])
def test_what_is_kept_is_the_front_of_all_trials_in_any_order(make_bench: Callable[..., Bench], keep: str) -> None:
    bench = make_bench(objectives=TWO, budget={"trials": 40}, execution={"keep_models": keep})
    draws = random.Random(5)
    values = [(float(draws.randint(0, 9)), float(draws.randint(0, 9))) for _ in range(40)]
    gone: list[str] = []
    for reservation in bench.running(40):
        gone += finish(bench, outcome(reservation, values[reservation.number]))
    front = set(pareto_front([(value, -score) for value, score in values]))
    on_front = {number for number, (value, score) in enumerate(values) if (value, -score) in front}
    assert kept(bench) == (on_front if keep == "best" else set(range(40)))
    assert set(gone) == (paths(*(set(range(40)) - on_front)) if keep == "best" else set())
    assert len(gone) == len(set(gone))


def test_one_objective_keeps_the_best_trials_files_alone(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    r = bench.running(3)
    assert finish(bench, outcome(r[0], (3.0,))) == []
    assert set(finish(bench, outcome(r[1], (1.0,)))) == paths(0)
    assert set(finish(bench, outcome(r[2], (2.0,)))) == paths(2)
    assert kept(bench) == {1}
