"""Populations that can't be trained, and what can't be asked of checkpoints."""

from __future__ import annotations

from typing import Any

from tests.integration.bad_input import DefinitionCase, RequestCase
from tests.integration.bad_input.studies import flt, mlp, whole

OPTIONS = ["sampler", "options"]


def population(options: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return mlp(sampler={"name": "pbt", "options": options or {}}, **changes)


def refused(option: str, value: Any) -> DefinitionCase:
    return (f"pbt: {option} {value!r}", population({option: value}), [*OPTIONS, option])


DEFINITIONS: list[DefinitionCase] = [
    refused("population_size", 1),
    refused("population_size", 2.5),
    refused("population_size", 10**6),
    refused("interval_epochs", 0),
    refused("interval_epochs", "5"),
    refused("quantile", 0.0),
    refused("quantile", 0.6),
    refused("perturbation", []),
    ("pbt: a factor of 0", population({"perturbation": [0.0]}), [*OPTIONS, "perturbation", 0]),
    ("pbt: a factor in words", population({"perturbation": ["more"]}), [*OPTIONS, "perturbation", 0]),
    refused("resample_probability", 1.5),
    ("pbt: an unknown option", population({"exploit": "truncation"}), [*OPTIONS, "exploit"]),
    ("pbt: an interval as long as the training", population({"interval_epochs": 10}), [*OPTIONS, "interval_epochs"]),
    (
        "pbt: a structural hyperparameter",
        population(hyperparameters={"l1": flt(), "units": whole(8, 16)}),
        ["hyperparameters", "units"],
    ),
    (
        "pbt: two objectives",
        population(objectives=[{"metric": "val_loss"}, {"metric": "val_accuracy", "direction": "maximize"}]),
        ["objectives", 1],
    ),
    ("pbt: a pruner", population(pruner={"name": "median"}), ["pruner", "name"]),
    ("pbt: the best epoch", population(training={"select_epoch": "best"}), ["training", "select_epoch"]),
    (
        "pbt: early stopping",
        population(training={"early_stopping": {"metric": "val_loss"}}),
        ["training", "early_stopping"],
    ),
    ("checkpoints in words", mlp(execution={"checkpoints": "always"}), ["execution", "checkpoints"]),
    ("checkpoints as a truth value", mlp(execution={"checkpoints": True}), ["execution", "checkpoints"]),
]

LINEAGE = "/v1/studies/{id}/trials/%s/lineage"
REQUESTS: list[RequestCase] = [
    ("lineage of no trial", "GET", LINEAGE % 99, None, {}, 404, "TRIAL_NOT_FOUND", None),
    ("lineage of no study", "GET", "/v1/studies/st_none/trials/0/lineage", None, {}, 404, "STUDY_NOT_FOUND", None),
    ("lineage with a query", "GET", LINEAGE % "0" + "?depth=1", None, {}, 422, "INVALID_REQUEST", ["query", "depth"]),
]
