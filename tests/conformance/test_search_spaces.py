"""Conditions to any depth, ordered choices, genetic search by reference points: with all samplers that take them."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.space import is_active
from app.domain.study import StudyDefinition
from app.domain.trial import TrialState
from app.store.engine import Database
from app.tuning.storage import StudyStorage
from tests.conformance.fleet import GP, Fleet, definition

SAMPLERS = ["tpe", "random", "qmc", "nsgaii", "nsgaiii", GP]
OPTIONS: dict[str, dict[str, Any]] = {
    "nsgaii": {"population_size": 8},
    "nsgaiii": {"population_size": 8},
    "tpe": {"n_startup_trials": 5},
    "gp": {"n_startup_trials": 5},
}
DEEP: dict[str, Any] = {
    "fixed": "on",
    "a": {"type": "categorical", "choices": [True, False]},
    "b": {"type": "int", "low": 1, "high": 3, "when": {"a": [True]}},
    "c": {"type": "categorical", "choices": ["x", "y"], "when": {"b": [2, 3], "fixed": ["on"]}},
    "d": {"type": "categorical", "choices": [1, 2, 4], "ordered": True, "when": {"c": ["x", "y"], "a": [True]}},
    "e": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25, "when": {"d": [2, 4], "fixed": ["on"]}},
    "never": {"type": "float", "low": 0.0, "high": 1.0, "when": {"e": [0.5], "c": ["x"], "a": [False]}},
}
ORDERED: dict[str, Any] = {
    "size": {"type": "categorical", "choices": [16, 32, 64, 128, 256, 512], "ordered": True},
    "shade": {"type": "categorical", "choices": ["light", "medium", "dark"], "ordered": True},
    "rate": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
}


def depth(values: dict[str, Any]) -> float:
    """Better the more parameters were drawn."""
    return float(-len(values))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_parameter_five_levels_deep_is_drawn_where_all_its_conditions_hold(
    sqlite_database: Database, sampler: str
) -> None:
    study = definition(sampler, options=OPTIONS.get(sampler), space=DEEP, trials=30 if sampler == "gp" else 80)
    fleet = Fleet(sqlite_database, study, judge=depth)  # type: ignore[arg-type]
    fleet.run()
    searched = study.searched
    reached = set()
    for values in fleet.sampled():
        for name, parameter in searched.items():
            assert (name in values) == is_active(parameter, {"fixed": "on", **values})
            assert name not in values or parameter.contains(values[name])
        reached.add("".join(sorted(values)))
    assert {"a", "ab"} <= reached
    assert "abcde" in reached
    assert all("never" not in values for values in fleet.sampled())


def nearest(values: dict[str, Any]) -> float:
    """Best at the size 128 and the darkest shade."""
    sizes, shades = ORDERED["size"]["choices"], ORDERED["shade"]["choices"]
    return abs(sizes.index(values["size"]) - 3) + (2 - shades.index(values["shade"])) / 2 + values["rate"] / 100


@pytest.mark.parametrize("sampler", [*SAMPLERS, "grid"])
def test_ordered_choices_keep_their_values_with_every_sampler_whoever_asks(database: Database, sampler: str) -> None:
    space = {name: ORDERED[name] for name in ("size", "shade")} if sampler == "grid" else ORDERED
    trials = 16 if sampler == "gp" else 40
    study = definition(sampler, options=OPTIONS.get(sampler), space=space, trials=trials)

    def judge(values: Any) -> float:
        return nearest({"rate": 0.0, **values})

    first, second = (Fleet(database, study, project=name, judge=judge) for name in ("one", "two"))
    first.run()
    second.run()
    assert first.sampled() == second.sampled()
    for values in first.sampled():
        assert values["size"] in ORDERED["size"]["choices"]
        assert values["shade"] in ORDERED["shade"]["choices"]
    if sampler == "grid":
        assert {(v["size"], v["shade"]) for v in first.sampled()} == {
            (size, shade) for size in ORDERED["size"]["choices"] for shade in ORDERED["shade"]["choices"]
        }
    if sampler == "tpe":
        late = [nearest(values) for values in first.sampled()[-20:]]
        assert sum(late) / len(late) < 1.5  # at random 2.0


def test_optuna_sees_an_ordered_choice_as_its_index(sqlite_database: Database) -> None:
    fleet = Fleet(sqlite_database, definition("random", space=ORDERED, trials=5), judge=nearest)  # type: ignore[arg-type]
    fleet.run()
    storage = StudyStorage(sqlite_database.url.render_as_string(hide_password=False))
    sizes = ORDERED["size"]["choices"]
    assert [sizes[t.params["size"]] for t in storage.get_all_trials(fleet.study_id)] == [
        values["size"] for values in fleet.sampled()
    ]
    storage.close()


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "nsgaiii", GP])
@pytest.mark.parametrize("objectives", [2, 3])
def test_several_objectives_are_optimised_the_same_whoever_asks(
    database: Database, sampler: str, objectives: int
) -> None:
    trials = 14 if sampler == "gp" else 50
    study = definition(sampler, options=OPTIONS.get(sampler), objectives=objectives, trials=trials)
    first, second = (Fleet(database, study, project=name) for name in ("one", "two"))
    first.run()
    second.run()
    assert set(first.states.values()) == {TrialState.COMPLETE}
    assert first.sampled() == second.sampled()


def test_an_ordered_parent_is_named_by_its_choices() -> None:
    study = StudyDefinition.model_validate(definition(space=DEEP).model_dump())
    assert study.searched["d"].index(4) == 2  # type: ignore[union-attr]
