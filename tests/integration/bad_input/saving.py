"""Precision, gradient accumulation, class weights and determinism that can't be."""

from __future__ import annotations

from typing import Any

from tests.integration.bad_input import DefinitionCase
from tests.integration.bad_input.studies import function, mlp, searched


def weighted(weights: Any, **changes: Any) -> dict[str, Any]:
    return mlp(training={"class_weights": weights}, **changes)


def deterministic(**changes: Any) -> dict[str, Any]:
    training = changes.pop("training", {})
    return mlp(training={"deterministic": True} | training, **changes)


WEIGHTS = ["training", "class_weights"]

DEFINITIONS: list[DefinitionCase] = [
    ("unknown precision", mlp(training={"precision": "float64"}), ["training", "precision"]),
    ("no precision", mlp(training={"precision": None}), ["training", "precision"]),
    ("half of a function", function(training={"precision": "mixed_float16"}), ["training", "precision"]),
    ("no steps", searched(gradient_accumulation_steps=0), ["hyperparameters", "gradient_accumulation_steps"]),
    ("half a step", searched(gradient_accumulation_steps=1.5), ["hyperparameters", "gradient_accumulation_steps"]),
    ("endless steps", searched(gradient_accumulation_steps=2000), ["hyperparameters", "gradient_accumulation_steps"]),
    ("unbalanced", weighted("unbalanced"), WEIGHTS),
    ("a number of weights", weighted(3), WEIGHTS),
    ("no weights", weighted({}), WEIGHTS),
    ("unknown class", weighted({"eleven": 2.0}), [*WEIGHTS, "eleven"]),
    ("a class beyond the last", weighted({"10": 2.0}), [*WEIGHTS, "10"]),
    ("a negative class", weighted({"-1": 2.0}), [*WEIGHTS, "-1"]),
    ("a class of other digits", weighted({"\u0663": 2.0}), [*WEIGHTS, "\u0663"]),
    ("a negative weight", weighted({"3": -1.0}), WEIGHTS),
    ("a weight of text", weighted({"3": "heavy"}), WEIGHTS),
    (
        "a class by both its names",
        weighted({"benign": 1.0, "1": 2.0}, dataset={"name": "breast-cancer"}),
        [*WEIGHTS, "1"],
    ),
    ("all weights 0", weighted({"malignant": 0, "benign": 0}, dataset={"name": "breast-cancer"}), WEIGHTS),
    (
        "weights of a regression",
        weighted("balanced", dataset={"name": "diabetes"}, objectives=[{"metric": "val_mae"}]),
        WEIGHTS,
    ),
    ("weights of a function", function(training={"class_weights": "balanced"}), WEIGHTS),
    ("text for deterministic", mlp(training={"deterministic": "yes"}), ["training", "deterministic"]),
    ("deterministic seconds", deterministic(budget={"trials": 5, "seconds": 9}), ["budget", "seconds"]),
    ("deterministic device", deterministic(budget={"device_seconds": 9}), ["budget", "device_seconds"]),
    (
        "deterministic timeout",
        deterministic(execution={"trial_timeout_seconds": 5}),
        ["execution", "trial_timeout_seconds"],
    ),
    ("a deterministic clock", deterministic(objectives=[{"metric": "train_seconds"}]), ["objectives", 0, "metric"]),
    (
        "a deterministic peak",
        deterministic(constraints=[{"metric": "peak_memory_mb", "max": 900}]),
        ["constraints", 0, "metric"],
    ),
    (
        "stopped by the clock",
        deterministic(training={"early_stopping": {"metric": "seconds"}}),
        ["training", "early_stopping", "metric"],
    ),
]
