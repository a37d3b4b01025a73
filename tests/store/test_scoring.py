"""Scores on the test part are told once, with the study's end, of the best trial alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.domain.json import loads
from app.domain.trial import ArtifactPointer
from app.store import lifecycle
from app.store.listing import list_trials
from app.store.tables import Artifact
from tests.store.conftest import Bench, definition


def model(number: int) -> tuple[ArtifactPointer, ...]:
    return (ArtifactPointer("model.keras", f"s/{number}/model.keras", "application/vnd.keras", 10, {"task": "t"}),)


def scored(value: float, number: int) -> dict[str, Any]:
    """An outcome's fields with a score of its own."""
    return {"value": value, "test_metrics": {"test_loss": value + 10}, "artifacts": model(number)}


def told(bench: Bench) -> list[tuple[int, dict[str, float]]]:
    return [(e["trial"], e["metrics"]) for e in bench.events() if e["type"] == "trial.tested"]


def with_tests(bench: Bench) -> list[int]:
    with bench.database.read() as session:
        found = list_trials(session, bench.study_id, limit=100)
    return [t.number for t in found if "test_loss" in loads(t.metrics or "{}")]


def test_only_the_best_at_the_end_is_told_its_scores_and_before_the_study_is_over(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(budget={"trials": 3})
    for reservation, value in zip(bench.running(3), (0.5, 0.1, 0.3), strict=True):
        assert (told(bench), with_tests(bench)) == ([], [])
        bench.finish(reservation, **scored(value, reservation.number))
    assert told(bench) == [(1, {"test_loss": 10.1})]
    assert bench.kinds()[-2:] == ["trial.tested", "study.finished"]
    assert with_tests(bench) == [1]
    with bench.database.read() as session:
        kept = session.query(Artifact).one()
        assert loads(kept.details) == {"task": "t", "test_metrics": {"test_loss": 10.1}}
    bench.check()


def test_a_study_that_is_stopped_or_cancelled_tells_its_best_trials_scores_too(
    make_bench: Callable[..., Bench],
) -> None:
    for action, name in ((lifecycle.stop, "stopped"), (lifecycle.cancel, "cancelled")):
        bench = make_bench(name=name)
        first, _second = bench.running(2)
        bench.finish(first, **scored(0.2, 0))
        bench.act(action)
        if name == "stopped":
            bench.finish(_second, **scored(0.4, 1))
        assert told(bench) == [(0, {"test_loss": 10.2})]
        assert bench.kinds()[-1] == "study.finished"


def test_a_study_that_goes_on_tells_a_better_trial_and_never_the_same_one_twice(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(budget={"trials": 1})
    bench.finish(bench.running()[0], **scored(0.5, 0))
    for trials, value in ((2, 0.7), (3, 0.1)):
        bench.act(lifecycle.update_study, definition(budget={"trials": trials}))
        bench.finish(bench.running()[0], **scored(value, trials - 1))
    assert told(bench) == [(0, {"test_loss": 10.5}), (2, {"test_loss": 10.1})]


def test_with_several_objectives_the_whole_front_is_told(make_bench: Callable[..., Bench]) -> None:
    objectives = [{"metric": "value"}, {"metric": "other", "direction": "maximize"}]
    bench = make_bench(objectives=objectives, budget={"trials": 4})
    points = ((1.0, 1.0), (2.0, 3.0), (2.5, 2.0), (1.5, float("nan")))
    for reservation, values in zip(bench.running(4), points, strict=True):
        bench.finish(reservation, values=values, test_metrics={"test_loss": values[0]})
    assert [number for number, _ in told(bench)] == [0, 1]


def test_a_best_trial_that_breaks_a_constraint_or_has_no_score_is_not_told(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"trials": 2})
    first, second = bench.running(2)
    bench.finish(first, **scored(0.1, 0), violations=(1.0,))
    bench.finish(second, 0.5)
    assert (told(bench), bench.study().best_number) == ([], 1)
