"""Folds and repeats that can't be."""

from __future__ import annotations

from tests.integration.bad_input import DefinitionCase
from tests.integration.bad_input.studies import function, mlp

DEFINITIONS: list[DefinitionCase] = [
    ("no folds", mlp(training={"folds": 0}), ["training", "folds"]),
    ("half a fold", mlp(training={"folds": 2.5}), ["training", "folds"]),
    ("too many folds", mlp(training={"folds": 51}), ["training", "folds"]),
    ("too many repeats", mlp(training={"repeats": 101}), ["training", "repeats"]),
    ("folds of nothing", function(training={"folds": 3}), ["training", "folds"]),
    ("repeats of a function", function(training={"repeats": 3}), ["training", "repeats"]),
    (
        "folds smaller than classes",
        mlp(training={"folds": 30}, dataset={"name": "wine", "test_fraction": 0.9}),
        ["training", "folds"],
    ),
    (
        "folds beside a fraction",
        mlp(training={"folds": 3}, dataset={"name": "digits", "validation_fraction": 0.3}),
        ["dataset", "validation_fraction"],
    ),
    ("wilcoxon over epochs", mlp(pruner={"name": "wilcoxon"}), ["pruner", "name"]),
    (
        "wilcoxon within patient",
        mlp(pruner={"name": "patient", "options": {"pruner": {"name": "wilcoxon"}}}),
        ["pruner", "options", "pruner", "name"],
    ),
    ("a spread without folds", mlp(objectives=[{"metric": "val_loss_std"}]), ["objectives", 0, "metric"]),
]
