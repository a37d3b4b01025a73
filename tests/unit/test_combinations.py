"""Where two features meet in one definition: what goes together is accepted, what means nothing is refused in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.api.validation import accepted
from app.domain.families.declaration import float_parameter, int_parameter
from app.domain.families.plugin import FamilyPlugin, Metric
from app.domain.registry import BUILT_IN
from app.domain.study import StudyDefinition
from app.errors import InvalidStudy
from app.settings import Settings

PLUGIN = FamilyPlugin(
    name="a-plugin",
    version="1",
    description="",
    builder="nowhere:build",
    hyperparameters=(int_parameter("width", 8, 1, 64, ""), float_parameter("drop", 0.1, 0.0, 0.9, "")),
    metrics=(Metric("f1", "maximize", "nowhere:f1"),),
)
FAMILIES = BUILT_IN.and_also([PLUGIN.family()])
SETTINGS = Settings()
RATE = {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}}
UNITS = {"units": {"type": "categorical", "choices": [8, 16], "ordered": True}}
COMMON: dict[str, Any] = {"name": "met", "training": {"epochs": 4}, "budget": {"trials": 4}}
ACCURACY = {"metric": "val_accuracy", "direction": "maximize"}
TRAINED = {"dataset": {"name": "wine"}, "hyperparameters": RATE, "objectives": [ACCURACY]}
X0 = {"type": "float", "low": -5.0, "high": 5.0}
DENSE = [{"layer": "Dense", "units": {"hyperparameter": "units"}}]
BASES: dict[str, dict[str, Any]] = {
    "mlp": {**COMMON, **TRAINED, "model": {"family": "mlp"}},
    "keras-layers": {
        **COMMON,
        **TRAINED,
        "model": {"family": "keras-layers", "layers": DENSE},
        "hyperparameters": {**RATE, "units": 8},
    },
    "a-plugin": {**COMMON, **TRAINED, "model": {"family": "a-plugin"}},
    "function": {
        **COMMON,
        "model": {"family": "function"},
        "objectives": [{"metric": "value"}],
        "hyperparameters": {"x0": X0},
    },
    "external": {
        **COMMON,
        "model": {"family": "external"},
        "objectives": [{"metric": "val_loss"}],
        "hyperparameters": {"a": X0},
    },
}
POPULATION = {"sampler": {"name": "pbt", "options": {"population_size": 2, "interval_epochs": 2}}}
BOTH = {"objectives": [ACCURACY, {"metric": "parameter_count"}]}
PARETO = {**BOTH, "pruner": {"name": "pareto"}}


def training(**fields: Any) -> dict[str, Any]:
    return {"training": fields}


def execution(**fields: Any) -> dict[str, Any]:
    return {"execution": fields}


def merged(base: Mapping[str, Any], *changes: Mapping[str, Any]) -> dict[str, Any]:
    """A base with sections of the changes merged in; lists, samplers and pruners are replaced."""
    result: dict[str, Any] = json.loads(json.dumps(base))
    for change in changes:
        for key, value in change.items():
            merges = isinstance(value, dict) and key not in ("sampler", "pruner")
            result[key] = {**result.get(key, {}), **value} if merges else value
    return result


def places(definition: Mapping[str, Any]) -> set[tuple[str | int, ...]]:
    """Where a definition is refused; nowhere where it is accepted."""
    try:
        accepted(StudyDefinition.model_validate(definition), SETTINGS, families=FAMILIES)
    except InvalidStudy as refusal:
        return {tuple(error.loc) for error in refusal.errors}
    return set()


HALF, BALANCED = training(precision="mixed_float16"), training(class_weights="balanced")
NOWHERE: tuple[str | int, ...] = ()
PRECISION, WEIGHTS, DETERMINISTIC = (("training", n) for n in ("precision", "class_weights", "deterministic"))
FOLDS, REPEATS = ("training", "folds"), ("training", "repeats")

# What is added to a definition, and where it is refused: for families whose networks we train, `function`, `external`.
TABLE: dict[str, tuple[dict[str, Any], tuple[str | int, ...], tuple[str | int, ...], tuple[str | int, ...]]] = {
    "precision": (HALF, NOWHERE, PRECISION, PRECISION),
    "class weights": (BALANCED, NOWHERE, WEIGHTS, WEIGHTS),
    "deterministic": (training(deterministic=True), NOWHERE, NOWHERE, DETERMINISTIC),
    "folds": (training(folds=3), NOWHERE, FOLDS, FOLDS),
    "repeats": (training(repeats=2), NOWHERE, REPEATS, REPEATS),
    "event files": (
        execution(artifacts=["tensorboard"]),
        NOWHERE,
        ("execution", "artifacts"),
        ("execution", "artifacts"),
    ),
    "all models": (execution(keep_models="all"), NOWHERE, NOWHERE, NOWHERE),
    "no checkpoints": (execution(checkpoints="off"), NOWHERE, NOWHERE, NOWHERE),
    "reuse": (execution(duplicates="reuse"), NOWHERE, NOWHERE, NOWHERE),
    "resample": (execution(duplicates="resample"), NOWHERE, NOWHERE, NOWHERE),
    "a population": (POPULATION, NOWHERE, NOWHERE, ("sampler", "name")),
    "hyperband": ({"pruner": {"name": "hyperband"}}, NOWHERE, NOWHERE, NOWHERE),
    "wilcoxon alone": ({"pruner": {"name": "wilcoxon"}}, *[("pruner", "name")] * 3),
    "the last epoch": (training(select_epoch="last"), NOWHERE, NOWHERE, NOWHERE),
    "early stopping": (training(early_stopping={"patience": 1}), NOWHERE, NOWHERE, NOWHERE),
}  # fmt: skip


@pytest.mark.parametrize("feature", TABLE)
@pytest.mark.parametrize("family", BASES)
def test_a_feature_is_accepted_by_every_family_that_it_means_something_for(family: str, feature: str) -> None:
    change, trained, function, external = TABLE[feature]
    wanted = {"function": function, "external": external}.get(family, trained)
    assert places(merged(BASES[family], change)) == ({wanted} if wanted else set())


PAIRS: dict[str, tuple[str, list[dict[str, Any]], set[tuple[str | int, ...]]]] = {
    "folds, balanced in half precision": ("mlp", [training(folds=3), HALF, BALANCED], set()),
    "folds, deterministic": ("mlp", [training(folds=3, deterministic=True)], set()),
    "folds, wilcoxon": ("mlp", [training(folds=3), {"pruner": {"name": "wilcoxon"}}], set()),
    "folds, a front": ("mlp", [training(folds=3), PARETO], set()),
    "folds, two metrics without a rule": (
        "mlp",
        [training(folds=3), BOTH, {"pruner": {"name": "wilcoxon"}}],
        {("pruner", "options")},
    ),
    "folds, spread as an objective": (
        "mlp",
        [training(folds=3), {"objectives": [ACCURACY, {"metric": "val_accuracy_std"}]}],
        set(),
    ),
    "spread without folds": (
        "mlp",
        [{"objectives": [{"metric": "val_accuracy_std"}]}],
        {("objectives", 0, "metric")},
    ),
    "spread of a plugin's own metric": (
        "a-plugin",
        [training(folds=3), {"objectives": [{"metric": "val_f1_std"}]}],
        {("objectives", 0, "metric")},
    ),
    "a plugin's own metric over folds": (
        "a-plugin",
        [training(folds=3), {"objectives": [{"metric": "val_f1", "direction": "maximize"}]}],
        set(),
    ),
    "a population in half precision, balanced": ("mlp", [POPULATION, HALF, BALANCED], set()),
    "a deterministic population": ("mlp", [POPULATION, training(deterministic=True)], set()),
    "a population with folds": ("mlp", [POPULATION, training(folds=2)], {FOLDS}),
    "a population that reuses": ("mlp", [POPULATION, execution(duplicates="reuse")], {("execution", "duplicates")}),
    "a population of several widths": (
        "mlp",
        [POPULATION, {"hyperparameters": UNITS}],
        {("hyperparameters", "units")},
    ),
    "a population of several lists of layers": (
        "keras-layers",
        [POPULATION, {"hyperparameters": UNITS}],
        {("hyperparameters", "units")},
    ),
    "a population of a plugin's structures": (
        "a-plugin",
        [POPULATION, {"hyperparameters": {"width": UNITS["units"]}}],
        {("hyperparameters", "width")},
    ),
    "a population of a plugin's rates": (
        "a-plugin",
        [POPULATION, {"hyperparameters": {"drop": {"type": "float", "low": 0.0, "high": 0.5}}}],
        set(),
    ),
    "steps of several batches by layers": ("keras-layers", [{"hyperparameters": UNITS | {"batch_size": 8}}], set()),
    "an outside program's front": (
        "external",
        [{"objectives": [{"metric": "val_loss"}, {"metric": "size"}], "pruner": {"name": "pareto"}}],
        set(),
    ),
    "an outside program's constraint": ("external", [{"constraints": [{"metric": "size", "max": 3.0}]}], set()),
    "no improvement of a front": (
        "mlp",
        [BOTH, {"budget": {"no_improvement_trials": 3}}],
        {("budget", "no_improvement_trials")},
    ),
    "a clock in a deterministic study": (
        "mlp",
        [training(deterministic=True), execution(trial_timeout_seconds=9.0)],
        {("execution", "trial_timeout_seconds")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_two_features_together(name: str) -> None:
    family, changes, wanted = PAIRS[name]
    assert places(merged(BASES[family], *changes)) == wanted


def test_no_improvement_of_a_front_is_refused_whatever_the_data() -> None:
    """A change of a running study is checked without its upload at hand."""
    definition = merged(
        BASES["mlp"], BOTH, {"dataset": {"name": "ds_elsewhere"}, "budget": {"no_improvement_trials": 3}}
    )
    assert ("budget", "no_improvement_trials") in places(definition)


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("examples/*.json")), ids=lambda path: path.stem)
def test_an_example_is_accepted_but_for_data_that_are_not_there(path: Path) -> None:
    assert places(json.loads(path.read_text())) <= ({("dataset", "name")} if path.stem == "customers-mlp" else set())
