"""A deterministic study's trials are reserved by generations: none before all of the one before have ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.store import lifecycle, workers
from tests.store.conftest import Bench

DETERMINISTIC = {"training": {"deterministic": True}}


def make(make_bench: Callable[..., Bench], parallel: int | str = 3, **changes: Any) -> Bench:
    return make_bench(**DETERMINISTIC, execution={"parallel_trials": parallel}, **({"budget": {"trials": 8}} | changes))


def numbers(reservations: list[Any]) -> list[int]:
    return [r.number for r in reservations]


def offered(bench: Bench) -> bool:
    with bench.database.read() as session:
        return bool(workers.claimable(session, workers.Offer("cpu", ["function"], {})))


def test_a_generation_is_reserved_whole_however_many_are_asked_for(make_bench: Callable[..., Bench]) -> None:
    bench = make(make_bench)
    first = bench.reserve(1)
    assert numbers(first) == [0, 1, 2]
    assert not offered(bench)
    assert bench.reserve(100, "w2") == []
    bench.start(first)
    bench.finish(first[1])
    bench.finish(first[0])
    assert bench.reserve(100) == []
    bench.finish(first[2])
    assert offered(bench)
    assert numbers(bench.running(1)) == [3, 4, 5]
    bench.check()


def test_auto_makes_generations_of_eight_and_the_budget_ends_the_last_one(make_bench: Callable[..., Bench]) -> None:
    bench = make(make_bench, "auto", budget={"trials": 10})
    first = bench.running(2)
    assert numbers(first) == list(range(8))
    for reservation in first:
        bench.finish(reservation)
    assert numbers(bench.running(2)) == [8, 9]


def test_a_trial_that_is_given_back_runs_again_before_the_next_generation(make_bench: Callable[..., Bench]) -> None:
    bench = make(make_bench)
    first = bench.running(3)
    bench.finish(first[0])
    bench.expire(first[1])
    assert bench.reap() == 1
    assert offered(bench)
    again = bench.reserve(5, "w2")
    assert numbers(again) == [1]
    bench.start(again, "w2")
    bench.finish(again[0])
    assert bench.reserve(5) == []
    bench.finish(first[2])
    assert numbers(bench.reserve(1)) == [3, 4, 5]
    bench.check()


def test_a_target_is_looked_at_between_generations(make_bench: Callable[..., Bench]) -> None:
    bench = make(make_bench, objectives=[{"metric": "value", "target": 0.2}])
    first = bench.running(3)
    bench.finish(first[1], 0.1)
    assert bench.study().halt_reason is None
    bench.finish(first[0], 0.5)
    bench.finish(first[2], 0.05)
    study = bench.study()
    assert (study.state, study.complete, study.best_number) == ("COMPLETED", 3, 2)
    bench.check()


def test_a_patch_of_parallel_trials_changes_the_next_generation(make_bench: Callable[..., Bench]) -> None:
    from tests.store.conftest import definition

    bench = make(make_bench)
    for reservation in bench.running(1):
        bench.finish(reservation)
    changed = definition(**DETERMINISTIC, execution={"parallel_trials": 2}, budget={"trials": 8})
    bench.act(lifecycle.update_study, changed)
    assert numbers(bench.reserve(1)) == [3, 4]
