"""Whatever is sent is answered with a problem that names the place, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from app.store.engine import Database
from app.store.tables import Event, IdempotencyKey, Study, Trial

MLP: dict[str, Any] = {
    "name": "new",
    "model": {"family": "mlp"},
    "dataset": {"name": "digits"},
    "hyperparameters": {"l1": {"type": "float", "low": 1e-7, "high": 1e-3, "log": True}},
    "objectives": [{"metric": "val_accuracy", "direction": "maximize"}],
    "budget": {"trials": 5},
}
FUNCTION: dict[str, Any] = {
    "name": "new",
    "model": {"family": "function"},
    "hyperparameters": {"x0": {"type": "float", "low": 0.0, "high": 1.0}},
    "objectives": [{"metric": "value"}],
    "budget": {"trials": 5},
}


def mlp(**changes: Any) -> dict[str, Any]:
    return MLP | changes


def searched(**hyperparameters: Any) -> dict[str, Any]:
    return MLP | {"hyperparameters": hyperparameters}


def function(**changes: Any) -> dict[str, Any]:
    return FUNCTION | changes


def coordinates(count: int, **others: Any) -> dict[str, Any]:
    axis = {"type": "float", "low": 0.0, "high": 1.0}
    return FUNCTION | {"hyperparameters": {f"x{i}": axis for i in range(count)} | others}


def flt(low: Any = 0.0, high: Any = 1.0, **more: Any) -> dict[str, Any]:
    return {"type": "float", "low": low, "high": high} | more


def whole(low: Any, high: Any, **more: Any) -> dict[str, Any]:
    return {"type": "int", "low": low, "high": high} | more


def among(*choices: Any, **more: Any) -> dict[str, Any]:
    return {"type": "categorical", "choices": list(choices)} | more


# What is wrong, the definition, and the place that the answer must name.
DEFINITIONS: list[tuple[str, Any, list[Any]]] = [
    ("unknown family", mlp(model={"family": "resnet"}), ["model", "family"]),
    ("unknown data set", mlp(dataset={"name": "imagenet"}), ["dataset", "name"]),
    ("no data set", {k: v for k, v in MLP.items() if k != "dataset"}, ["dataset"]),
    ("a data set too many", function(dataset={"name": "digits"}), ["dataset"]),
    ("vectors for a CNN", mlp(model={"family": "image-cnn"}, dataset={"name": "wine"}), ["dataset", "name"]),
    ("no name", {k: v for k, v in MLP.items() if k != "name"}, ["name"]),
    ("no model", {k: v for k, v in MLP.items() if k != "model"}, ["model"]),
    ("no objectives", mlp(objectives=[]), ["objectives"]),
    ("bad name", mlp(name="a b"), ["name"]),
    ("empty name", mlp(name=""), ["name"]),
    ("long name", mlp(name="a" * 129), ["name"]),
    ("a number for a name", mlp(name=5), ["name"]),
    ("unknown field", mlp(foo=1), ["foo"]),
    ("unknown field of model", mlp(model={"family": "mlp", "foo": 1}), ["model", "foo"]),
    ("unknown field of dataset", mlp(dataset={"name": "digits", "foo": 1}), ["dataset", "foo"]),
    ("unknown field of training", mlp(training={"foo": 1}), ["training", "foo"]),
    ("unknown field of stopping", mlp(training={"early_stopping": {"foo": 1}}), ["training", "early_stopping", "foo"]),
    ("unknown field of an objective", mlp(objectives=[{"metric": "loss", "foo": 1}]), ["objectives", 0, "foo"]),
    ("unknown field of a constraint", mlp(constraints=[{"metric": "loss", "max": 1, "f": 1}]), ["constraints", 0, "f"]),
    ("unknown field of budget", mlp(budget={"trials": 1, "foo": 1}), ["budget", "foo"]),
    ("unknown field of execution", mlp(execution={"foo": 1}), ["execution", "foo"]),
    ("unknown field of a search", searched(l1=flt(foo=1)), ["hyperparameters", "l1", "foo"]),
    ("unknown hyperparameter", searched(depth=3), ["hyperparameters", "depth"]),
    ("unknown sampler", mlp(sampler={"name": "magic"}), ["sampler", "name"]),
    ("unknown sampler option", mlp(sampler={"name": "tpe", "options": {"foo": 1}}), ["sampler", "options", "foo"]),
    ("unknown pruner", mlp(pruner={"name": "magic"}), ["pruner", "name"]),
    ("unknown pruner option", mlp(pruner={"name": "median", "options": {"foo": 1}}), ["pruner", "options", "foo"]),
    ("a continuous grid", mlp(sampler={"name": "grid"}), ["hyperparameters", "l1"]),
    ("low above high", searched(l1=flt(2.0, 1.0)), ["hyperparameters", "l1", "low"]),
    ("low equal to high", searched(units=whole(3, 3)), ["hyperparameters", "units", "low"]),
    ("log from 0", searched(l1=flt(0.0, 1.0, log=True)), ["hyperparameters", "l1", "low"]),
    ("int log from 0", searched(units=whole(0, 3, log=True)), ["hyperparameters", "units", "low"]),
    ("a step that doesn't fit", searched(l1=flt(0.0, 1.0, step=0.3)), ["hyperparameters", "l1", "step"]),
    ("an int step that doesn't fit", searched(units=whole(1, 10, step=4)), ["hyperparameters", "units", "step"]),
    ("a step of 0", searched(l1=flt(step=0.0)), ["hyperparameters", "l1", "step"]),
    ("the smallest step", searched(l1=flt(step=5e-324)), ["hyperparameters", "l1", "step"]),
    ("a step with log", searched(l1=flt(0.1, 1.0, step=0.1, log=True)), ["hyperparameters", "l1", "step"]),
    ("an endless width", searched(l1=flt(-1.7e308, 1.7e308)), ["hyperparameters", "l1", "high"]),
    ("no choices", searched(units=among()), ["hyperparameters", "units", "choices"]),
    ("a choice twice", searched(units=among(8, 8)), ["hyperparameters", "units", "choices"]),
    ("a choice of null", searched(units=among(None)), ["hyperparameters", "units", "choices", 0]),
    ("text for low", searched(l1=flt(low="x")), ["hyperparameters", "l1", "low"]),
    ("no high", searched(l1={"type": "float", "low": 0}), ["hyperparameters", "l1", "high"]),
    ("no type", searched(l1={"low": 0, "high": 1}), ["hyperparameters", "l1", "type"]),
    ("unknown type", searched(l1={"type": "uniform", "low": 0, "high": 1}), ["hyperparameters", "l1", "type"]),
    ("a list for a value", searched(l1=[1, 2]), ["hyperparameters", "l1"]),
    ("null for a value", searched(l1=None), ["hyperparameters", "l1"]),
    ("a fixed value out of range", searched(dropout=1.5), ["hyperparameters", "dropout"]),
    ("a fixed fraction of a layer", searched(hidden_layers=1.5), ["hyperparameters", "hidden_layers"]),
    ("true for a number", searched(dropout=True), ["hyperparameters", "dropout"]),
    ("NaN in text", searched(learning_rate="NaN"), ["hyperparameters", "learning_rate"]),
    ("unknown activation", searched(activation="step"), ["hyperparameters", "activation"]),
    ("high out of range", searched(dropout=flt(0.0, 1.0)), ["hyperparameters", "dropout", "high"]),
    ("low out of range", searched(l1=flt(-1.0, 1.0)), ["hyperparameters", "l1", "low"]),
    ("a choice out of range", searched(units=among(8, 0)), ["hyperparameters", "units", "choices", 1]),
    ("an unknown choice", searched(activation=among("relu", "x")), ["hyperparameters", "activation", "choices", 1]),
    ("a float search of units", searched(units=flt(1.0, 8.0)), ["hyperparameters", "units", "type"]),
    ("a float search of activations", searched(activation=flt()), ["hyperparameters", "activation", "type"]),
    ("unknown parent", searched(l1=flt(when={"foo": [1]})), ["hyperparameters", "l1", "when", "foo"]),
    ("a parent's impossible value", searched(l1=flt(when={"units": [7]})), ["hyperparameters", "l1", "when", "units"]),
    ("no values of a parent", searched(l1=flt(when={"units": []})), ["hyperparameters", "l1", "when", "units"]),
    ("its own parent", searched(l1=flt(when={"l1": [0.5]})), ["hyperparameters", "l1", "when"]),
    (
        "circular parents",
        searched(l1=flt(when={"l2": [0.5]}), l2=flt(when={"l1": [0.5]})),
        ["hyperparameters", "l1", "when"],
    ),
    ("no budget", {k: v for k, v in MLP.items() if k != "budget"}, ["budget"]),
    ("an empty budget", mlp(budget={}), ["budget"]),
    ("a budget of 0", mlp(budget={"trials": 0}), ["budget", "trials"]),
    ("a budget of half a trial", mlp(budget={"trials": 0.5}), ["budget", "trials"]),
    ("negative seconds", mlp(budget={"seconds": -1}), ["budget", "seconds"]),
    ("too many trials", mlp(budget={"trials": 10**9}), ["budget", "trials"]),
    ("a list for the budget", mlp(budget=[]), ["budget"]),
    ("too many epochs", mlp(training={"epochs": 100_000}), ["training", "epochs"]),
    ("no epochs", mlp(training={"epochs": 0}), ["training", "epochs"]),
    ("too many at once", mlp(execution={"parallel_trials": 10_000}), ["execution", "parallel_trials"]),
    ("none at once", mlp(execution={"parallel_trials": 0}), ["execution", "parallel_trials"]),
    ("unknown device", mlp(execution={"device": "tpu"}), ["execution", "device"]),
    ("a model of billions", searched(units=16_384, hidden_layers=32), ["hyperparameters"]),
    ("unknown metric", mlp(objectives=[{"metric": "f1"}]), ["objectives", 0, "metric"]),
    ("another task's metric", mlp(objectives=[{"metric": "val_mae"}]), ["objectives", 0, "metric"]),
    ("unknown direction", mlp(objectives=[{"metric": "loss", "direction": "up"}]), ["objectives", 0, "direction"]),
    ("an objective twice", mlp(objectives=[{"metric": "loss"}, {"metric": "loss"}]), ["objectives", 1, "metric"]),
    ("a gap of nothing", mlp(objectives=[{"metric": "generalization_gap"}]), ["objectives", 0, "metric"]),
    (
        "a target with two objectives",
        mlp(objectives=[{"metric": "loss", "target": 1}, {"metric": "val_loss"}]),
        ["objectives", 0, "target"],
    ),
    (
        "no improvement of two objectives",
        mlp(objectives=[{"metric": "loss"}, {"metric": "val_loss"}], budget={"no_improvement_trials": 3}),
        ["budget", "no_improvement_trials"],
    ),
    ("a constraint without bounds", mlp(constraints=[{"metric": "loss"}]), ["constraints", 0]),
    ("min above max", mlp(constraints=[{"metric": "loss", "min": 2, "max": 1}]), ["constraints", 0, "min"]),
    ("unknown constraint", mlp(constraints=[{"metric": "f1", "max": 1}]), ["constraints", 0, "metric"]),
    (
        "stopping by a result",
        mlp(training={"early_stopping": {"metric": "parameter_count"}}),
        ["training", "early_stopping", "metric"],
    ),
    (
        "nothing left to train on",
        mlp(dataset={"name": "digits", "validation_fraction": 0.5, "test_fraction": 0.5}),
        ["dataset", "validation_fraction"],
    ),
    (
        "too few rows to validate",
        mlp(dataset={"name": "wine", "validation_fraction": 0.001}),
        ["dataset", "validation_fraction"],
    ),
    ("a warmup of all epochs", searched(warmup_epochs=10), ["hyperparameters", "warmup_epochs"]),
    ("a warmup up to all epochs", searched(warmup_epochs=whole(0, 10)), ["hyperparameters", "warmup_epochs", "high"]),
    (
        "smooth regression",
        mlp(dataset={"name": "diabetes"}, objectives=[{"metric": "val_mae"}], hyperparameters={"label_smoothing": 0.1}),
        ["hyperparameters", "label_smoothing"],
    ),
    ("branin of three", coordinates(3, function="branin"), ["hyperparameters", "function"]),
    ("hartmann6 of two", coordinates(2, function="hartmann6"), ["hyperparameters", "function"]),
    ("no coordinates", function(hyperparameters={}), ["hyperparameters", "x0"]),
    ("a gap in coordinates", function(hyperparameters={"x0": flt(), "x2": flt()}), ["hyperparameters", "x1"]),
    ("bad label", mlp(labels={"a b": "c"}), ["labels", "a b"]),
    ("a number for a label", mlp(labels={"a": 1}), ["labels", "a"]),
    ("warm start", mlp(warm_start={"studies": ["x"]}), ["warm_start", "studies"]),
    ("not an object", [], []),
    ("text", "study", []),
    ("null", None, []),
    ("NUL", mlp(description="a\0b"), ["description"]),
    ("NUL in a key", mlp(labels={"a\0": "b"}), ["labels", "'a\\x00'"]),
    ("NUL in an option", mlp(sampler={"name": "tpe", "options": {"seed": "\0"}}), ["sampler", "options", "seed"]),
    ("a huge integer", searched(units=10**400), ["hyperparameters", "units"]),
    ("a huge bound", searched(units=whole(1, 2**63)), ["hyperparameters", "units", "high"]),
    ("a huge seed", mlp(training={"seed": 2**32}), ["training", "seed"]),
]

SURROGATE = json.dumps(mlp(description="X")).replace('"X"', '"\\ud800"')
RAW = json.dumps(mlp())

# Method, path, body (bytes are sent as they are), headers, status, code, place.
REQUESTS: list[tuple[str, str, str, Any, dict[str, str], int, str, list[Any] | None]] = [
    ("lone surrogate", "POST", "/v1/studies", SURROGATE.encode(), {}, 422, "INVALID_STUDY", ["description"]),
    (
        "1e999",
        "POST",
        "/v1/studies",
        RAW.replace("0.001", "1e999").encode(),
        {},
        422,
        "INVALID_STUDY",
        ["hyperparameters", "l1", "high"],
    ),
    ("NaN", "POST", "/v1/studies", RAW.replace("0.001", "NaN").encode(), {}, 400, "BAD_REQUEST", None),
    ("Infinity", "POST", "/v1/studies", RAW.replace("0.001", "Infinity").encode(), {}, 400, "BAD_REQUEST", None),
    ("5000 digits", "POST", "/v1/studies", RAW.replace("0.001", "9" * 5000).encode(), {}, 400, "BAD_REQUEST", None),
    ("broken JSON", "POST", "/v1/studies", b'{"name": ', {}, 400, "BAD_REQUEST", None),
    ("not UTF-8", "POST", "/v1/studies", b'{"name": "\xff"}', {}, 400, "BAD_REQUEST", None),
    ("UTF-16", "POST", "/v1/studies", RAW.encode("utf-16"), {}, 400, "BAD_REQUEST", None),
    ("deep list", "POST", "/v1/studies", b"[" * 100_000 + b"]" * 100_000, {}, 400, "BAD_REQUEST", None),
    ("deep object", "POST", "/v1/studies", b'{"a":' * 50 + b"1" + b"}" * 50, {}, 400, "BAD_REQUEST", None),
    ("a key twice", "POST", "/v1/studies", b'{"name": "a", "name": "b"}', {}, 400, "BAD_REQUEST", None),
    ("no body", "POST", "/v1/studies", b"", {}, 422, "INVALID_STUDY", []),
    ("large body", "POST", "/v1/studies", b" " * 1_000_001, {}, 413, "BODY_TOO_LARGE", None),
    (
        "form",
        "POST",
        "/v1/studies",
        b"name=a",
        {"Content-Type": "application/x-www-form-urlencoded"},
        415,
        "UNSUPPORTED_MEDIA_TYPE",
        None,
    ),
    (
        "text body",
        "POST",
        "/v1/studies",
        RAW.encode(),
        {"Content-Type": "text/plain"},
        415,
        "UNSUPPORTED_MEDIA_TYPE",
        None,
    ),
    (
        "YAML",
        "POST",
        "/v1/studies:validate",
        RAW.encode(),
        {"Content-Type": "application/yaml"},
        415,
        "UNSUPPORTED_MEDIA_TYPE",
        None,
    ),
    ("taken name", "POST", "/v1/studies", mlp(name="present"), {}, 409, "NAME_TAKEN", None),
    (
        "validate too",
        "POST",
        "/v1/studies:validate",
        mlp(model={"family": "x"}),
        {},
        422,
        "INVALID_STUDY",
        ["model", "family"],
    ),
    (
        "bad key",
        "POST",
        "/v1/studies",
        mlp(),
        {"Idempotency-Key": "a b"},
        422,
        "INVALID_REQUEST",
        ["header", "Idempotency-Key"],
    ),
    (
        "long key",
        "POST",
        "/v1/studies",
        mlp(),
        {"Idempotency-Key": "a" * 256},
        422,
        "INVALID_REQUEST",
        ["header", "Idempotency-Key"],
    ),
    ("unknown query of a list", "GET", "/v1/studies?foo=1", None, {}, 422, "INVALID_REQUEST", ["query", "foo"]),
    ("unknown query of one", "GET", "/v1/studies/{id}?limit=1", None, {}, 422, "INVALID_REQUEST", ["query", "limit"]),
    ("unknown query of POST", "POST", "/v1/studies?foo=1", mlp(), {}, 422, "INVALID_REQUEST", ["query", "foo"]),
    ("limit 0", "GET", "/v1/studies?limit=0", None, {}, 422, "INVALID_REQUEST", ["query", "limit"]),
    ("limit 1001", "GET", "/v1/studies?limit=1001", None, {}, 422, "INVALID_REQUEST", ["query", "limit"]),
    ("limit x", "GET", "/v1/studies/{id}/trials?limit=x", None, {}, 422, "INVALID_REQUEST", ["query", "limit"]),
    ("unknown state", "GET", "/v1/studies?state=BUSY", None, {}, 422, "INVALID_REQUEST", ["query", "state", 0]),
    ("unknown sort", "GET", "/v1/studies?sort=size", None, {}, 422, "INVALID_REQUEST", ["query", "sort"]),
    ("half a label", "GET", "/v1/studies?label=team", None, {}, 422, "INVALID_REQUEST", ["query", "label"]),
    ("NUL in q", "GET", "/v1/studies?q=%00", None, {}, 422, "INVALID_REQUEST", ["query", "q"]),
    ("bad cursor", "GET", "/v1/studies?cursor=abc", None, {}, 400, "BAD_CURSOR", None),
    ("deep cursor", "GET", "/v1/studies?cursor=W1tbW1tb", None, {}, 400, "BAD_CURSOR", None),
    (
        "odd cursor",
        "GET",
        "/v1/studies/{id}/trials?cursor=%FF%00",
        None,
        {},
        422,
        "INVALID_REQUEST",
        ["query", "cursor"],
    ),
    ("unknown study", "GET", "/v1/studies/st_none", None, {}, 404, "STUDY_NOT_FOUND", None),
    ("a name for an id", "GET", "/v1/studies/present", None, {}, 404, "STUDY_NOT_FOUND", None),
    ("NUL in an id", "GET", "/v1/studies/%00", None, {}, 404, "NOT_FOUND", None),
    ("bytes in an id", "GET", "/v1/studies/%ff%fe", None, {}, 404, "STUDY_NOT_FOUND", None),
    ("a long id", "GET", "/v1/studies/" + "a" * 5000, None, {}, 404, "STUDY_NOT_FOUND", None),
    ("pause of nothing", "POST", "/v1/studies/st_none:pause", None, {}, 404, "STUDY_NOT_FOUND", None),
    ("change of nothing", "PATCH", "/v1/studies/st_none", {"description": "x"}, {}, 404, "STUDY_NOT_FOUND", None),
    ("deletion of nothing", "DELETE", "/v1/studies/st_none", None, {}, 404, "STUDY_NOT_FOUND", None),
    ("trials of nothing", "GET", "/v1/studies/st_none/trials", None, {}, 404, "STUDY_NOT_FOUND", None),
    ("events of nothing", "GET", "/v1/studies/st_none/events", None, {}, 404, "STUDY_NOT_FOUND", None),
    ("best of nothing", "GET", "/v1/studies/st_none/best", None, {}, 404, "STUDY_NOT_FOUND", None),
    ("unknown trial", "GET", "/v1/studies/{id}/trials/7", None, {}, 404, "TRIAL_NOT_FOUND", None),
    ("a huge number", "GET", "/v1/studies/{id}/trials/999999999999999", None, {}, 404, "TRIAL_NOT_FOUND", None),
    ("digits without end", "GET", "/v1/studies/{id}/trials/" + "9" * 5000, None, {}, 404, "NOT_FOUND", None),
    ("a word for a number", "GET", "/v1/studies/{id}/trials/first", None, {}, 404, "NOT_FOUND", None),
    ("cancel of nothing", "POST", "/v1/studies/{id}/trials/7:cancel", None, {}, 404, "TRIAL_NOT_FOUND", None),
    ("logs of nothing", "GET", "/v1/studies/{id}/trials/7/logs", None, {}, 404, "TRIAL_NOT_FOUND", None),
    (
        "a path for a name",
        "GET",
        "/v1/studies/{id}/trials/0/artifacts/..%2f..%2fetc%2fpasswd",
        None,
        {},
        404,
        "NOT_FOUND",
        None,
    ),
    (
        "unknown artifact",
        "GET",
        "/v1/studies/{id}/trials/0/artifacts/model.keras",
        None,
        {},
        404,
        "ARTIFACT_NOT_FOUND",
        None,
    ),
    (
        "bad attempt",
        "GET",
        "/v1/studies/{id}/trials/0/metrics?attempt=-1",
        None,
        {},
        422,
        "INVALID_REQUEST",
        ["query", "attempt"],
    ),
    ("unknown action", "POST", "/v1/studies/{id}:explode", None, {}, 404, "NOT_FOUND", None),
    ("unknown route", "GET", "/v2/studies", None, {}, 404, "NOT_FOUND", None),
    ("a slash too many", "GET", "/v1/studies/", None, {}, 404, "NOT_FOUND", None),
    ("PUT", "PUT", "/v1/studies/{id}", mlp(), {}, 405, "METHOD_NOT_ALLOWED", None),
    ("GET of an action", "GET", "/v1/studies/{id}:pause", None, {}, 405, "METHOD_NOT_ALLOWED", None),
    ("deletion of all", "DELETE", "/v1/studies", None, {}, 405, "METHOD_NOT_ALLOWED", None),
    ("deletion of what runs", "DELETE", "/v1/studies/{id}", None, {}, 409, "STATE_CONFLICT", None),
    ("pause of what is over", "POST", "/v1/studies/{over}:pause", None, {}, 409, "STATE_CONFLICT", None),
    ("resume of what is over", "POST", "/v1/studies/{over}:resume", None, {}, 409, "STATE_CONFLICT", None),
    ("stop of what is over", "POST", "/v1/studies/{over}:stop", None, {}, 409, "STATE_CONFLICT", None),
    ("a trial of what is over", "POST", "/v1/studies/{over}/trials", {}, {}, 409, "STATE_CONFLICT", None),
    ("a field of an action", "POST", "/v1/studies/{id}:pause", {"why": 1}, {}, 422, "INVALID_STUDY", ["why"]),
    ("a list for an action", "POST", "/v1/studies/{id}:pause", [1], {}, 422, "INVALID_STUDY", []),
    (
        "another's revision",
        "PATCH",
        "/v1/studies/{id}",
        {"description": "x"},
        {"If-Match": '"9"'},
        412,
        "REVISION_MISMATCH",
        None,
    ),
    (
        "a change of the model",
        "PATCH",
        "/v1/studies/{id}",
        {"model": {"family": "mlp"}},
        {},
        422,
        "INVALID_STUDY",
        ["model"],
    ),
    (
        "a change of the device",
        "PATCH",
        "/v1/studies/{id}",
        {"execution": {"device": "cpu"}},
        {},
        422,
        "INVALID_STUDY",
        ["execution", "device"],
    ),
    (
        "a bad change of labels",
        "PATCH",
        "/v1/studies/{id}",
        {"labels": {"a b": "c"}},
        {},
        422,
        "INVALID_STUDY",
        ["labels", "a b"],
    ),
    ("no budget left", "PATCH", "/v1/studies/{id}", {"budget": {"trials": None}}, {}, 422, "INVALID_STUDY", ["budget"]),
    (
        "too large a budget",
        "PATCH",
        "/v1/studies/{id}",
        {"budget": {"trials": 10**8}},
        {},
        422,
        "INVALID_STUDY",
        ["budget", "trials"],
    ),
    ("a list for a patch", "PATCH", "/v1/studies/{id}", [], {}, 422, "INVALID_STUDY", []),
    (
        "a trial outside",
        "POST",
        "/v1/studies/{id}/trials",
        {"hyperparameters": {"x0": 7}},
        {},
        422,
        "INVALID_REQUEST",
        ["hyperparameters", "x0"],
    ),
    (
        "a trial of something else",
        "POST",
        "/v1/studies/{id}/trials",
        {"hyperparameters": {"x1": 0}},
        {},
        422,
        "INVALID_REQUEST",
        ["hyperparameters", "x1"],
    ),
    (
        "a trial of an object",
        "POST",
        "/v1/studies/{id}/trials",
        {"hyperparameters": {"x0": {}}},
        {},
        422,
        "INVALID_REQUEST",
        ["hyperparameters", "x0"],
    ),
    (
        "a trial against the fixed",
        "POST",
        "/v1/studies/{id}/trials",
        {"hyperparameters": {"function": "branin"}},
        {},
        422,
        "INVALID_REQUEST",
        ["hyperparameters", "function"],
    ),
    ("a field of a trial", "POST", "/v1/studies/{id}/trials", {"foo": 1}, {}, 422, "INVALID_REQUEST", ["foo"]),
    (
        "a list for a trial",
        "POST",
        "/v1/studies/{id}/trials",
        {"hyperparameters": []},
        {},
        422,
        "INVALID_REQUEST",
        ["hyperparameters"],
    ),
    (
        "unknown format",
        "GET",
        "/v1/studies/{id}/export?format=xls",
        None,
        {},
        422,
        "INVALID_REQUEST",
        ["query", "format"],
    ),
    ("after x", "GET", "/v1/studies/{id}/events?after=x", None, {}, 422, "INVALID_REQUEST", ["query", "after"]),
    ("after -1", "GET", "/v1/studies/{id}/events?after=-1", None, {}, 422, "INVALID_REQUEST", ["query", "after"]),
    (
        "bad event id",
        "GET",
        "/v1/studies/{id}/events",
        None,
        {"Last-Event-ID": "x"},
        422,
        "INVALID_REQUEST",
        ["header", "Last-Event-ID"],
    ),
    (
        "pages of a stream",
        "GET",
        "/v1/studies/{id}/events?limit=3",
        None,
        {},
        422,
        "INVALID_REQUEST",
        ["query", "limit"],
    ),
    (
        "pictures of events",
        "GET",
        "/v1/studies/{id}/events",
        None,
        {"Accept": "image/png"},
        406,
        "NOT_ACCEPTABLE",
        None,
    ),
    ("bad firehose id", "GET", "/v1/events?after=zz", None, {}, 400, "BAD_CURSOR", None),
    ("unknown worker", "POST", "/v1/workers/none:drain", None, {}, 404, "WORKER_NOT_FOUND", None),
    ("unknown set", "GET", "/v1/datasets/none", None, {}, 404, "DATASET_NOT_FOUND", None),
]


class Site:
    """A service with one running and one finished study, and the count of all that is stored."""

    def __init__(self, running: Any) -> None:
        self.client = running.client
        self.database: Database = running.database
        self.ids = {"id": running.create(name="present")["id"], "over": running.create(name="over")["id"]}
        assert self.client.post(f"/v1/studies/{self.ids['id']}/trials", json={}).status_code == 201
        assert self.client.post(f"/v1/studies/{self.ids['over']}:cancel").status_code == 200

    def counts(self) -> list[int | None]:
        with self.database.read() as session:
            tables = (Study, Trial, Event, IdempotencyKey)
            return [session.scalar(select(func.count()).select_from(table)) for table in tables]

    def send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        for name, public_id in self.ids.items():
            path = path.replace(f"{{{name}}}", public_id)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        return self.client.request(method, path, content=body, headers=kind | headers)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, serve_module: Any) -> Iterator[Site]:
    """One service for all cases: none of them may change anything."""
    folder: Path = tmp_path_factory.mktemp("site")
    with serve_module(request.param, folder) as running:
        yield Site(running)


def _expect(site: Site, response: Any, status: int, code: str, loc: list[Any] | None, before: list[int | None]) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) >= {"type", "title", "status", "detail", "code", "errors"}
    assert (problem["code"], problem["status"]) == (code, status)
    assert problem["detail"]
    if loc is not None:
        assert loc in [error["loc"] for error in problem["errors"]], problem["errors"]
    for error in problem["errors"]:
        assert error["msg"]
        assert not any("union" in str(part) or "function-after" in str(part) for part in error["loc"])
    assert site.counts() == before


@pytest.mark.parametrize(("what", "definition", "loc"), DEFINITIONS, ids=[case[0] for case in DEFINITIONS])
def test_a_definition_that_cannot_be_run_is_refused_at_its_place(
    site: Site, what: str, definition: Any, loc: list[Any]
) -> None:
    before = site.counts()
    response = site.send("POST", "/v1/studies", definition, {})
    _expect(site, response, 422, "INVALID_STUDY", loc, before)


@pytest.mark.parametrize(
    ("what", "method", "path", "body", "headers", "status", "code", "loc"), REQUESTS, ids=[case[0] for case in REQUESTS]
)
def test_a_bad_request_is_answered_with_a_problem(
    site: Site,
    what: str,
    method: str,
    path: str,
    body: Any,
    headers: dict[str, str],
    status: int,
    code: str,
    loc: list[Any] | None,
) -> None:
    before = site.counts()
    _expect(site, site.send(method, path, body, headers), status, code, loc, before)


def test_all_problems_of_a_definition_come_at_once(site: Site) -> None:
    definition = mlp(
        hyperparameters={"depth": 1, "l1": flt(-1.0, 1.0)},
        objectives=[{"metric": "f1"}],
        budget={},
        sampler={"name": "magic"},
    )
    problem = site.send("POST", "/v1/studies", definition, {}).json()
    places = [error["loc"] for error in problem["errors"]]
    for expected in (["hyperparameters", "depth"], ["hyperparameters", "l1", "low"], ["objectives", 0, "metric"]):
        assert expected in places
    assert ["budget"] in places
    assert ["sampler", "name"] in places


def test_a_body_without_a_length_is_counted_while_it_arrives(site: Site) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(2_000):
            yield b" " * 1024

    before = site.counts()
    response = site.client.post("/v1/studies", content=endless(), headers={"Content-Type": "application/json"})
    _expect(site, response, 413, "BODY_TOO_LARGE", None, before)


def test_a_refused_method_tells_those_that_are_allowed(site: Site) -> None:
    response = site.send("PUT", "/v1/studies/{id}", {}, {})
    assert response.headers["allow"] == "GET, PATCH, DELETE"


def test_messages_say_what_was_expected_and_what_came(site: Site) -> None:
    problem = site.send("POST", "/v1/studies", mlp(model={"family": "resnet"}), {}).json()
    assert problem["errors"] == [
        {"loc": ["model", "family"], "msg": "Expected one of function, image-cnn, mlp. Received: 'resnet'"}
    ]
    problem = site.send("POST", "/v1/studies", searched(l1=flt(low="x")), {}).json()
    assert problem["errors"] == [
        {"loc": ["hyperparameters", "l1", "low"], "msg": 'Expected a valid number. Received: "x"'}
    ]
