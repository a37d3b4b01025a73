"""Samplers: what a study may name, grids, and what an ask depends on."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from app.domain.study import StudyDefinition
from app.domain.trial import Reservation
from app.store.engine import Database
from app.tuning.declared import groups, shuffled
from app.tuning.options import OptionsError
from app.tuning.samplers import grid_cells, sampler_options, sampler_problems, samplers
from app.tuning.view import StudyView

SPACE: dict[str, Any] = {
    "rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "units": {"type": "int", "low": 32, "high": 128, "step": 32},
    "schedule": {"type": "categorical", "choices": ["constant", "step"]},
    "decay": {"type": "float", "low": 0.1, "high": 0.9, "when": {"schedule": ["step"]}},
    "every": {"type": "int", "low": 1, "high": 5, "when": {"schedule": ["step"]}},
}
GRID: dict[str, Any] = {
    "share": {"type": "float", "low": 0.0, "high": 0.3, "step": 0.1},
    "units": {"type": "int", "low": 1, "high": 9, "log": True},
    "flag": {"type": "categorical", "choices": [True, False, "auto"]},
}


def study(sampler: str = "tpe", *, space: dict[str, Any] | None = None, **options: Any) -> StudyDefinition:
    return StudyDefinition.model_validate(
        {
            "name": "sampled",
            "model": {"family": "external"},
            "hyperparameters": {"depth": 3, **(SPACE if space is None else space)},
            "objectives": [{"metric": "value"}],
            "sampler": {"name": sampler, "options": options},
            "budget": {"trials": 10},
        }
    )


def reservation(number: int, **fields: Any) -> Reservation:
    return Reservation(1000 + number, number, f"token{number}", 1, fields.pop("ordinal", number), **fields)


def test_every_sampler_has_a_schema_and_defaults() -> None:
    assert [choice.name for choice in samplers()] == ["tpe", "random", "grid", "qmc", "gp", "nsgaii", "pbt"]
    for choice in samplers():
        assert choice.options["additionalProperties"] is False
        assert sampler_options(choice.name, {}).seed == 0


@pytest.mark.parametrize(
    ("name", "options", "loc", "words"),
    [
        ("cmaes", {}, ("sampler", "name"), "Expected a sampler among: tpe, random, grid, qmc, gp, nsgaii"),
        ("tpe", {"gamma": 3}, ("sampler", "options", "gamma"), "Received: 'gamma'"),
        ("tpe", {"seed": -1}, ("sampler", "options", "seed"), "greater than or equal to 0"),
        ("tpe", {"seed": True}, ("sampler", "options", "seed"), "valid integer"),
        ("qmc", {"qmc_type": "latin"}, ("sampler", "options", "qmc_type"), "'sobol' or 'halton'"),
        ("nsgaii", {"mutation_prob": 1.5}, ("sampler", "options", "mutation_prob"), "less than or equal to 1"),
    ],
)
def test_options_that_mean_nothing_are_refused_at_their_place(
    name: str, options: dict[str, Any], loc: tuple[str, ...], words: str
) -> None:
    with pytest.raises(OptionsError) as caught:
        sampler_options(name, options)
    assert caught.value.errors[0].loc == loc
    assert words in caught.value.errors[0].msg


def test_gp_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "install fettle[gp]" in sampler_problems(study("gp"))[0].msg


def test_a_grid_needs_finite_axes_without_conditions() -> None:
    places = [problem.loc for problem in sampler_problems(study("grid"))]
    assert places == [
        ("hyperparameters", "rate"),
        ("hyperparameters", "decay", "when"),
        ("hyperparameters", "decay"),
        ("hyperparameters", "every", "when"),
    ]
    assert sampler_problems(study("grid", space=GRID)) == []
    assert grid_cells(study("grid", space=GRID)) == 4 * 9 * 3
    assert grid_cells(study("tpe")) is None


@pytest.mark.parametrize("size", [1, 2, 3, 10, 64, 1000])
def test_shuffling_is_a_permutation_that_follows_the_seed(size: int) -> None:
    orders = [[shuffled(index, size, seed) for index in range(size)] for seed in (0, 1)]
    assert all(sorted(order) == list(range(size)) for order in orders)
    assert size < 10 or orders[0] != orders[1] != list(range(size))


def test_parameters_under_equal_conditions_are_drawn_together() -> None:
    assert [set(group) for group in groups(study())] == [{"rate", "units", "schedule"}, {"decay", "every"}]


@pytest.fixture
def database(sqlite_url: str) -> Database:
    return Database(sqlite_url)


@pytest.mark.parametrize("sampler", ["random", "qmc", "grid"])
def test_a_trial_gets_the_same_values_in_any_batch_and_order(database: Database, sampler: str) -> None:
    definition = study(sampler, space=GRID if sampler == "grid" else None)
    batch = StudyView(database, 1, definition).ask([reservation(n) for n in range(8)])
    view = StudyView(database, 1, definition)
    alone = {n: view.ask([reservation(n)])[0].sampled for n in reversed(range(8))}
    assert [proposal.sampled for proposal in batch] == [alone[n] for n in range(8)]


def test_another_seed_gives_other_values(database: Database) -> None:
    drawn = [
        StudyView(database, 1, study(sampler, seed=seed)).ask([reservation(0)])[0].sampled["rate"]
        for sampler in ("random", "qmc", "tpe", "nsgaii")
        for seed in (1, 2)
    ]
    assert drawn[0] != drawn[1]
    assert drawn[2] != drawn[3]
    assert drawn[4] != drawn[5]
    assert drawn[6] != drawn[7]


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsgaii"])
def test_requested_values_win_and_the_rest_is_drawn(database: Database, sampler: str) -> None:
    view = StudyView(database, 1, study(sampler))
    wanted = {"rate": 0.01, "schedule": "step"}
    [proposal] = view.ask([reservation(0, ordinal=None, requested=wanted)])
    assert proposal.sampled.items() >= wanted.items()
    assert set(proposal.sampled) == set(SPACE)
    assert proposal.hyperparameters == {"depth": 3, **proposal.sampled}


def test_values_keep_their_types(database: Database) -> None:
    definition = study("random", space={**SPACE, **{name: GRID[name] for name in ("share", "flag")}})
    for proposal in StudyView(database, 1, definition).ask([reservation(n) for n in range(20)]):
        values = proposal.hyperparameters
        assert type(values["rate"]) is float
        assert type(values["share"]) is float
        assert type(values["units"]) is int
        assert any(values["flag"] is choice or values["flag"] == "auto" for choice in (True, False))


def test_family_defaults_fill_in_what_is_left_out(database: Database) -> None:
    definition = study(space={"x0": {"type": "float", "low": 0.0, "high": 1.0}})
    definition = definition.model_copy(update={"model": definition.model.model_copy(update={"family": "function"})})
    [proposal] = StudyView(database, 1, definition).ask([reservation(0)])
    assert proposal.hyperparameters == {
        "function": "sphere",
        "delay_seconds": 0.0,
        "depth": 3,
        "x0": proposal.sampled["x0"],
    }


def test_reports_of_trials_that_are_not_held_prune_nothing(database: Database) -> None:
    definition = study().model_copy(update={"pruner": study().pruner.model_copy(update={"name": "median"})})
    view = StudyView(database, 1, definition)
    [proposal] = view.ask([reservation(0)])
    assert view.holds(proposal.reservation.trial_id)
    assert not view.report(proposal.reservation.trial_id, 0, float("nan"))
    view.forget(proposal.reservation.trial_id)
    assert not view.report(proposal.reservation.trial_id, 1, 1.0)
    assert view.system_attributes(proposal.reservation.trial_id) == {}
