"""What can't be searched, judged, repeated or learned from."""

from __future__ import annotations

from typing import Any

from tests.integration.bad_input import DefinitionCase, RequestCase
from tests.integration.bad_input.studies import among, flt, mlp, searched

TWO = [{"metric": "val_accuracy", "direction": "maximize"}, {"metric": "parameter_count"}]


def pruned(name: str, *, objectives: Any = TWO, **options: Any) -> dict[str, Any]:
    return mlp(objectives=objectives, pruner={"name": name, "options": options})


def deep(**last: Any) -> dict[str, Any]:
    """Four levels of conditions, and a fifth one."""
    return searched(
        lr_schedule=among("constant", "step"),
        optimizer=among("adam", "sgd", when={"lr_schedule": ["step"]}),
        nesterov=among(True, False, when={"optimizer": ["sgd"]}),
        dropout=flt(0.0, 0.5, step=0.25, when={"nesterov": [True]}),
        **last,
    )


DEFINITIONS: list[DefinitionCase] = [
    ("ordered in words", searched(units=among(8, 16, ordered="yes")), ["hyperparameters", "units", "ordered"]),
    ("an ordered range", searched(l1=flt(ordered=True)), ["hyperparameters", "l1", "ordered"]),
    ("an ordered choice twice", searched(units=among(8, 8, ordered=True)), ["hyperparameters", "units", "choices"]),
    (
        "an ordered parent's index",
        searched(units=among(8, 16, ordered=True), l1=flt(when={"units": [0]})),
        ["hyperparameters", "l1", "when", "units"],
    ),
    ("a deep impossible value", deep(l2=flt(when={"dropout": [0.3]})), ["hyperparameters", "l2", "when", "dropout"]),
    ("a deep parent that isn't", deep(l2=flt(when={"momentun": [0.3]})), ["hyperparameters", "l2", "when", "momentun"]),
    ("1 for true", deep(l2=flt(when={"nesterov": [1]})), ["hyperparameters", "l2", "when", "nesterov"]),
    (
        "a circle of three",
        searched(
            units=among(8, 16, when={"dropout": [0.0]}),
            dropout=flt(0.0, 0.5, step=0.25, when={"hidden_layers": [1]}),
            hidden_layers=among(1, 2, when={"units": [8]}),
        ),
        ["hyperparameters", "dropout", "when"],
    ),
    ("no condition's value", searched(l1=flt(when={"units": []})), ["hyperparameters", "l1", "when", "units"]),
    ("pareto of one", pruned("pareto", objectives=TWO[:1]), ["pruner", "name"]),
    ("a share above 1", pruned("pareto", dominated_share=1.5), ["pruner", "options", "dominated_share"]),
    ("a metric of pareto", pruned("pareto", metric="val_accuracy"), ["pruner", "options", "metric"]),
    ("median of two", pruned("median"), ["pruner", "options"]),
    ("an unknown rule", pruned("median", rule="most"), ["pruner", "options", "rule"]),
    ("a metric that is no objective", pruned("median", metric="val_loss"), ["pruner", "options", "metric"]),
    ("a metric and a rule", pruned("median", metric="val_accuracy", rule="any"), ["pruner", "options", "rule"]),
    ("a rule of one", pruned("median", objectives=TWO[:1], rule="any"), ["pruner", "options", "rule"]),
    (
        "a rule within",
        pruned("patient", rule="any", pruner={"name": "median", "options": {"rule": "any"}}),
        ["pruner", "options", "pruner", "options", "rule"],
    ),
    (
        "pareto within",
        pruned("patient", rule="any", pruner={"name": "pareto"}),
        ["pruner", "options", "pruner", "name"],
    ),
    (
        "too many reference points",
        mlp(
            objectives=[{"metric": m} for m in ("loss", "val_loss", "accuracy", "val_accuracy", "seconds")],
            sampler={"name": "nsgaiii", "options": {"dividing_parameter": 100}},
        ),
        ["sampler", "options", "dividing_parameter"],
    ),
    ("no divisions", mlp(sampler={"name": "nsgaiii", "options": {"dividing_parameter": 0}}),
     ["sampler", "options", "dividing_parameter"]),
    ("unknown duplicates", mlp(execution={"duplicates": "forbid"}), ["execution", "duplicates"]),
    ("a warm start from nobody", mlp(warm_start={"studies": ["x"]}), ["warm_start", "studies", 0]),
    ("a warm start from nothing", mlp(warm_start={"studies": [""]}), ["warm_start", "studies", 0]),
    ("a warm start by number", mlp(warm_start={"studies": [7]}), ["warm_start", "studies", 0]),
    ("warm starts without end", mlp(warm_start={"studies": [f"s{i}" for i in range(17)]}), ["warm_start", "studies"]),
    ("a warm start of other objectives", mlp(warm_start={"studies": ["present"]}), ["warm_start", "studies", 0]),
    ("a warm start of dice", mlp(sampler={"name": "random"}, warm_start={"studies": ["x"]}), ["warm_start", "studies"]),
    ("unknown field of a warm start", mlp(warm_start={"trials": []}), ["warm_start", "trials"]),
]  # fmt: skip

REQUESTS: list[RequestCase] = [
    (
        "validating a warm start from nobody",
        "POST",
        "/v1/studies:validate",
        mlp(warm_start={"studies": ["x"]}),
        {},
        422,
        "INVALID_STUDY",
        ["warm_start", "studies", 0],
    ),
    (
        "other duplicates later",
        "PATCH",
        "/v1/studies/{id}",
        {"execution": {"duplicates": "reuse"}},
        {},
        422,
        "INVALID_STUDY",
        ["execution", "duplicates"],
    ),
]
