"""What samplers learn beside values: broken constraints and failures, with one objective and several; and that what is
asked for in part is taken, at any depth of conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from app.domain.objective import violations
from app.domain.study import Constraint
from app.domain.trial import FailureReason, TrialState
from app.store import lifecycle
from app.store.engine import Database
from tests.conformance.fleet import GP, Fleet, definition
from tests.conformance.test_search_spaces import DEEP

LEARNING = ["tpe", "nsgaii", "nsgaiii", GP]
OPTIONS: dict[str, dict[str, Any]] = {
    "nsgaii": {"population_size": 10},
    "nsgaiii": {"population_size": 10},
    "tpe": {"n_startup_trials": 8},
    "gp": {"n_startup_trials": 8},
}
SPACE: dict[str, Any] = {
    "x0": {"type": "float", "low": -1.0, "high": 1.0},
    "x1": {"type": "float", "low": 0.0, "high": 1.0},
}
LIMIT = Constraint(metric="parameter_count", max=0.0)


class Constrained(Fleet):
    """Trials whose `parameter_count` is their x0: those above 0 break the constraint, and have the best values."""

    def finish(self, worker: int, trial_id: int, state: TrialState, **fields: Any) -> None:
        count = self.running[worker][trial_id].proposal.sampled["x0"]
        broken = violations([LIMIT], {"parameter_count": float(count)}) if state is TrialState.COMPLETE else ()
        super().finish(worker, trial_id, state, violations=broken, **fields)


def tempting(objectives: int) -> Any:
    def judge(values: Mapping[str, Any]) -> tuple[float, ...]:
        first = -values["x0"] + 0.1 * values["x1"]
        return (first, *(first + values["x1"] * place for place in range(1, objectives)))

    return judge


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("sampler", LEARNING)
def test_samplers_leave_a_region_whose_trials_break_a_constraint(
    sqlite_database: Database, sampler: str, objectives: int
) -> None:
    trials = 20 if sampler == "gp" else 80
    study = definition(sampler, options=OPTIONS[sampler], space=SPACE, objectives=objectives, trials=trials)
    told = Constrained(sqlite_database, study, judge=tempting(objectives))
    untold = Fleet(sqlite_database, study, judge=tempting(objectives), project="untold")
    late = []
    for fleet in (told, untold):
        fleet.run()
        late.append([values["x0"] for values in fleet.sampled()[trials // 2 :]])
    inside, outside = (sum(x0 > 0.0 for x0 in found) / len(found) for found in late)
    assert inside < 0.6, "as many lie there at random as half"
    assert outside > inside + 0.1, "told nothing, a sampler goes where the values are best"


@pytest.mark.parametrize("reason", [FailureReason.OUT_OF_MEMORY, FailureReason.NON_FINITE, FailureReason.REFUSED])
@pytest.mark.parametrize("sampler", LEARNING)
def test_with_several_objectives_samplers_leave_a_region_that_fails(
    sqlite_database: Database, sampler: str, reason: FailureReason
) -> None:
    judged = tempting(2)
    trials = 20 if sampler == "gp" else 80
    study = definition(sampler, options=OPTIONS[sampler], space=SPACE, objectives=2, trials=trials)
    fleet = Fleet(sqlite_database, study, judge=lambda v: reason if v["x0"] > 0.4 else judged(v))
    fleet.run()
    late = [values["x0"] > 0.4 for values in fleet.sampled()[trials // 2 :]]
    assert len(fleet.states) == trials
    assert sum(late) < 0.5 * len(late), "the best values lie just inside"


def test_a_metric_outside_either_bound_breaks_its_constraint_and_so_does_a_missing_one() -> None:
    both = Constraint(metric="generalization_gap", min=-0.5, max=0.25)
    seconds = Constraint(metric="train_seconds", max=10.0)
    found = violations([both, seconds], {"generalization_gap": 0.75, "train_seconds": 4.0})
    assert found == (0.5, -6.0)
    assert violations([both, seconds], {"generalization_gap": -1.0}) == (0.5, 1.0)


@pytest.mark.parametrize("sampler", ["random", "qmc", *LEARNING])
def test_what_is_asked_for_in_part_is_taken_and_the_rest_is_drawn(sqlite_database: Database, sampler: str) -> None:
    study = definition(sampler, options=OPTIONS.get(sampler), space=DEEP, trials=20)
    fleet = Fleet(sqlite_database, study, judge=lambda values: float(len(values)))
    wanted: list[dict[str, Any]] = [
        {"a": True, "b": 3},
        {"c": "y"},
        {"a": True, "b": 2, "c": "x", "d": 4, "e": 0.5},
        {},
    ]
    for values in wanted:
        with sqlite_database.write() as session:
            lifecycle.enqueue(session, fleet.study_id, values)
    fleet.run()
    asked = fleet.sampled()[:4]
    assert asked[0].items() >= wanted[0].items()
    assert {"c", "d"} <= asked[0].keys()
    assert asked[1].get("c") in ("y", None), "only where its conditions hold"
    assert ("c" in asked[1]) == (asked[1].get("b") in (2, 3))
    assert asked[2] == wanted[2]
    assert "a" in asked[3]
