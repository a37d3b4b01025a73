"""How many trials a worker keeps in flight: enough for its trainer, few enough to learn from and to share."""

from __future__ import annotations

import pytest

from app.domain.study import StudyDefinition
from worker.pace import LEAST_IN_FLIGHT, MOST_LEARNING, Pace, in_flight


def study(sampler: str, trials: int | None, parallel: int | str = "auto") -> StudyDefinition:
    return StudyDefinition.model_validate(
        {
            "name": "s",
            "model": {"family": "function"},
            "objectives": [{"metric": "value"}],
            "sampler": {"name": sampler},
            "budget": {"trials": trials, "seconds": 60.0},
            "execution": {"parallel_trials": parallel},
        }
    )


@pytest.mark.parametrize(
    ("per_second", "ahead"),
    [
        (None, 16),  # nothing known: a second stack
        (0.01, 1),  # long trials: the next one alone, the others may run elsewhere
        (10.0, 20),  # what trains in two seconds
        (1000.0, 48),  # no more than three widths
    ],
)
def test_what_waits_follows_the_pace_of_the_trials(per_second: float | None, ahead: int) -> None:
    assert in_flight(study("random", 1000), 16, per_second) == 16 + ahead


@pytest.mark.parametrize(
    ("trials", "most"), [(8, LEAST_IN_FLIGHT), (60, 15), (200, 50), (10_000, MOST_LEARNING), (None, MOST_LEARNING)]
)
def test_a_sampler_that_learns_has_a_part_of_the_budget_in_flight(trials: int | None, most: int) -> None:
    assert in_flight(study("tpe", trials), 32, 1000.0) == most
    assert in_flight(study("tpe", trials), 1, None) == 2


def test_workers_share_a_learning_samplers_part_of_the_budget() -> None:
    assert in_flight(study("tpe", 200), 32, 1000.0, elsewhere=30) == 20
    assert in_flight(study("tpe", 200), 32, 1000.0, elsewhere=50) == LEAST_IN_FLIGHT
    assert in_flight(study("random", 200), 16, 1000.0, elsewhere=500) == 64


def test_no_more_is_asked_for_than_the_study_allows() -> None:
    assert in_flight(study("random", 200, parallel=1), 16, 1000.0) == 1


def test_the_pace_is_unknown_before_the_first_end_and_counts_ends_after_it() -> None:
    pace = Pace()
    assert pace.per_second() is None
    pace.note(3)
    assert (pace.per_second() or 0.0) > 0.0
