"""Limits hold over all workers, studies share them, and what is changed of a running study counts at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select

from app.domain.study import StudyDefinition
from app.store import lifecycle
from app.store.tables import Trial
from tests.store.conftest import Bench
from tests.support.processes import Fleet, over, peak_parallel, wait_for

MakeStudy = Callable[..., Bench]


def change(bench: Bench, **changes: dict[str, object]) -> None:
    """Change parts of a study's definition as a PATCH would."""
    body = StudyDefinition.model_validate_json(bench.study().definition or "").model_dump(mode="json")
    body |= {name: body[name] | values for name, values in changes.items()}
    bench.act(lifecycle.update_study, StudyDefinition.model_validate(body))


def finish_order(*benches: Bench) -> list[int]:
    """Which of the studies each trial belongs to, in the order of their ends."""
    ends = []
    for index, bench in enumerate(benches):
        with bench.database.read() as session:
            query = select(Trial.finished_at).where(Trial.study_id == bench.study_id, Trial.finished_at.is_not(None))
            ends += [(at, index) for at in session.scalars(query)]
    return [index for _, index in sorted(ends)]


@pytest.mark.parametrize("workers", [1, 2])
def test_studies_of_one_priority_share_the_workers(fleet: Fleet, make_study: MakeStudy, workers: int) -> None:
    benches = [make_study(name=name, trials=640, epochs=2, delay_seconds=0.05) for name in ("first", "second")]
    for _ in range(workers):
        fleet.start()
    assert [over(bench) for bench in benches] == ["COMPLETED", "COMPLETED"]
    order = finish_order(*benches)
    both_run = order[: 2 * 640 - max(order[::-1].index(0), order[::-1].index(1))]
    for study in (0, 1):
        assert both_run.count(study) >= len(both_run) // 4, "of what ended while both had trials left"
    for bench in benches:
        bench.check()


@pytest.mark.smoke
def test_a_study_of_higher_priority_comes_before_what_is_left_of_others(fleet: Fleet, make_study: MakeStudy) -> None:
    low = make_study(name="low", trials=60, epochs=2, delay_seconds=0.05, execution={"parallel_trials": 4})
    fleet.start()
    wait_for(lambda: low.study().complete >= 4, what="the first study's trials")
    high = make_study(name="high", trials=12, epochs=2, delay_seconds=0.05, execution={"priority": 10})
    assert over(high) == "COMPLETED"
    assert low.study().complete < 60
    order = finish_order(low, high)
    started = order.index(1)
    between = order[started : len(order) - order[::-1].index(1)]
    assert between.count(0) <= 8, "more of the other study ended in between than was in flight"
    assert over(low) == "COMPLETED"


@pytest.mark.parametrize(
    ("budget", "limit"),
    [
        ({"trials": 24}, "All 24 trials"),
        ({"trials": 1000, "device_seconds": 1.0}, "device seconds"),
        ({"trials": 1000, "no_improvement_trials": 15}, "no improvement"),
        ({"trials": 1000, "seconds": 1.5}, "1.5 seconds"),
    ],
    ids=["trials", "device-seconds", "no-improvement", "seconds"],
)
def test_budgets_are_the_studys_however_many_workers_there_are(
    fleet: Fleet, make_study: MakeStudy, budget: dict[str, object], limit: str
) -> None:
    bench = make_study(budget=budget, epochs=2, delay_seconds=0.01, execution={"parallel_trials": 6})
    for _ in range(3):
        fleet.start()
    assert over(bench) == "COMPLETED"
    study = bench.study()
    assert limit in (study.state_reason or "")
    # What was in flight when the limit was met is told as cancelled; nothing was begun after it.
    cancelled = [t for t in bench.trials() if t.reason == "CANCELLED"]
    assert study.complete + len(cancelled) == study.next_number
    assert len(cancelled) <= 6
    if "device_seconds" in budget:
        spent = sorted((t.finish_seq or 0, t.device_seconds) for t in bench.trials() if t.state == "COMPLETE")
        before_last = sum(seconds for _, seconds in spent[:-6])
        assert before_last < 1.0 <= study.device_seconds
    if "no_improvement_trials" in budget:
        values = [t.value for t in sorted(bench.trials(), key=lambda t: t.finish_seq or 0) if t.value is not None]
        stale = len(values) - 1 - values.index(min(values))
        assert stale + len(cancelled) >= 15
    bench.check()


def test_a_target_ends_the_study_on_all_workers(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(
        trials=1000,
        epochs=2,
        delay_seconds=0.01,
        objectives=[{"metric": "value", "direction": "minimize", "target": 0.01}],
        execution={"parallel_trials": 6},
    )
    for _ in range(3):
        fleet.start()
    assert over(bench) == "COMPLETED"
    study = bench.study()
    assert study.best_value is not None
    assert study.best_value <= 0.01
    ends = [t for t in sorted(bench.trials(), key=lambda t: t.finish_seq or 0) if t.value is not None]
    reached = next(i for i, t in enumerate(ends) if t.value is not None and t.value <= 0.01)
    assert len(ends) - reached <= 6, "trials were begun after the target was reached"
    bench.check()


def test_parallelism_and_budget_change_while_a_study_runs(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=1000, epochs=2, delay_seconds=0.05, execution={"parallel_trials": 1})
    fleet.start()
    wait_for(lambda: bench.study().complete >= 3, what="the first trials")
    assert peak_parallel(bench.events()) == 1
    change(bench, execution={"parallel_trials": 5})
    wait_for(lambda: peak_parallel(bench.events()) > 1, what="trials side by side")
    now = bench.study().next_number
    change(bench, budget={"trials": now + 10})
    assert over(bench) == "COMPLETED"
    assert bench.study().next_number == now + 10
    assert peak_parallel(bench.events()) <= 5
    change(bench, budget={"trials": now + 15})
    wait_for(lambda: bench.study().complete == now + 15, what="the trials that were added")
    assert over(bench) == "COMPLETED"
    kinds = bench.kinds()
    assert kinds.count("study.finished") == 2
    assert kinds[-1] == "study.finished"
    bench.check()


def test_a_budget_below_what_has_run_ends_a_study_with_what_runs(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=1000, epochs=4, delay_seconds=0.05, execution={"parallel_trials": 4})
    fleet.start()
    wait_for(lambda: bench.study().complete >= 3, what="the first trials")
    change(bench, budget={"trials": 3})
    assert over(bench) == "COMPLETED"
    assert bench.study().fail == 0
    bench.check()
