"""Definitions and requests that are meant to hurt: code for names, bombs of sizes, paths for ids."""

from __future__ import annotations

from typing import Any

from tests.integration.bad_input import DefinitionCase, RequestCase
from tests.integration.bad_input.layers import AT, DENSE, listed, named, on
from tests.integration.bad_input.studies import among, flt, function, mlp, whole

ABSENT = {"layer": "Flatten", "repeat": 0}
LAMBDA = {"class_name": "Lambda", "config": {"function": "__import__('os').system('id')"}}


def multiplied(depth: int, entry: Any, repeat: Any = 64) -> Any:
    """An entry in groups within groups, each repeated."""
    return entry if depth == 0 else {"layers": [multiplied(depth - 1, entry, repeat)], "repeat": repeat}


def valued(option: str, value: Any) -> DefinitionCase:
    return (f"{option}: {str(value)[:60]}", listed(DENSE | {option: value}), [*AT, 0, option])


CODE: list[DefinitionCase] = [
    *(
        (f"the layer {name!r}", listed({"layer": name, "units": 8}), [*AT, 0, "layer"])
        for name in (
            "Lambda", "TFSMLayer", "SavedModel", "Layer", "Wrapper", "TimeDistributed", "RNN", "StackedRNNCells",
            "Sequential", "Model", "Functional", "keras.layers.Dense", "keras>Lambda", "Custom>Layer", "__class__",
            "__init__", "dense", "Dense ", "Dense\n", "Ｄense", "../Dense", "{0.__class__}", "%s", "HashedCrossing",
            "StringLookup", "TextVectorization", "Discretization", "JaxLayer", "FlaxLayer", "TorchModuleWrapper",
        )
    ),
    ("a serialised Lambda", listed(LAMBDA), [*AT, 0]),
    ("a serialised Lambda beside a layer", listed(DENSE | LAMBDA), [*AT, 0, "class_name"]),
    ("a module of a layer", listed(DENSE | {"module": "os"}), [*AT, 0, "module"]),
    ("a registered name", listed(DENSE | {"registered_name": "os>system"}), [*AT, 0, "registered_name"]),
    ("a build configuration", listed(DENSE | {"build_config": {"input_shape": [1]}}), [*AT, 0, "build_config"]),
    ("a configuration for a layer", listed({"layer": {"class_name": "Dense", "config": {}}}), [*AT, 0, "layer"]),
    ("a Lambda both ways", listed({"layer": "Bidirectional", "of": {"layer": "Lambda"}}), [*AT, 0, "of", "layer"]),
    ("a serialised layer both ways", listed({"layer": "Bidirectional", "of": LAMBDA}), [*AT, 0, "of", "layer"]),
    valued("activation", {"class_name": "function", "config": "os.system"}),
    valued("activation", {"module": "builtins", "class_name": "function", "config": "eval"}),
    valued("activation", "os.system"),
    valued("activation", "keras.src.activations.relu"),
    valued("activation", "{0.__class__.__mro__}"),
    valued("activation", "__import__('os')"),
    valued("kernel_initializer", {"class_name": "Constant", "config": {"value": 0}}),
    valued("kernel_initializer", {"class_name": "Lambda", "config": {}}),
    valued("kernel_initializer", "Custom>Initializer"),
    valued("kernel_regularizer", {"class_name": "L2", "config": {"l2": 1e-3}}),
    valued("bias_constraint", {"class_name": "MaxNorm", "config": {}}),
    valued("dtype", {"class_name": "DTypePolicy", "config": {"name": "float32"}}),
    valued("name", '"""\nimport os\n"""'),
    valued("__class__", "os"),
    *(
        (f"the hyperparameter {name!r} of a layer", listed(DENSE | {"units": named(name)}), [*AT, 0, "units"])
        for name in ("__class__.x", "a-b", "a;import os", "a\nb", "{x}", "ｕnits", "a" * 64, "", "1a", "a[0]", 'a"')
    ),
    *(
        (f"the hyperparameter {name!r}", mlp(hyperparameters={name: 1}), ["hyperparameters", name])
        for name in (
            "__class__", "__init__", "__dict__", "{0.__class__}", "%(units)s", "units\n", "../units", "units; DROP",
            "UNITS", "constructor", "__proto__", "${units}",
        )
    ),
    ("an optimizer by its path", mlp(hyperparameters={"optimizer": "keras.optimizers.Adam"}),
     ["hyperparameters", "optimizer"]),
    ("an optimizer as a configuration", mlp(hyperparameters={"optimizer": {"class_name": "Adam", "config": {}}}),
     ["hyperparameters", "optimizer", "type"]),
    ("a sampler by its path", mlp(sampler={"name": "optuna.samplers.CmaEsSampler"}), ["sampler", "name"]),
    ("a sampler of pickles", mlp(sampler={"name": "../tpe"}), ["sampler", "name"]),
    ("a pruner by its path", mlp(pruner={"name": "__import__('os')"}), ["pruner", "name"]),
    ("a metric by its path", mlp(objectives=[{"metric": "os.system"}]), ["objectives", 0, "metric"]),
    ("a metric that formats", mlp(objectives=[{"metric": "{0.__class__}"}]), ["objectives", 0, "metric"]),
    ("a family by its path", mlp(model={"family": "os:system"}), ["model", "family"]),
    ("a family as a path", mlp(model={"family": "../../etc/passwd"}), ["model", "family"]),
    ("a study as a path", mlp(name="../../etc/passwd"), ["name"]),
    ("a study that formats", mlp(name="{0.__class__}"), ["name"]),
    ("a study with lines", mlp(name="a\nb"), ["name"]),
    ("a study in triple quotes", mlp(name='a"""b'), ["name"]),
    *(
        (f"the data set {name!r}", mlp(dataset={"name": name}), ["dataset", "name"])
        for name in ("../digits", "/etc/passwd", "file:///etc/passwd", "http://169.254.169.254/", "digits\n", "{0}")
    ),
    *(
        (f"the data set's id {name!r}", mlp(dataset={"name": "digits", "id": name}), ["dataset", "id"])
        for name in ("../../etc/passwd", "ds_../../../../etc/pas", "ds_" + "0" * 20, "")
    ),
]  # fmt: skip

BOMBS: list[DefinitionCase] = [
    ("a billion units", listed({"layer": "Dense", "units": 10**9}), [*AT, 0, "units"]),
    ("a million units by a search", listed({"layer": "Dense", "units": named("n")}, n=whole(1, 10**6)),
     ["hyperparameters", "n", "high"]),
    ("an embedding of a billion", on("docstrings", {"layer": "Embedding", "input_dim": 10**9, "output_dim": 8}),
     [*AT, 0, "input_dim"]),
    ("a convolution of padded images",
     on("shapes", *[{"layer": "ZeroPadding2D", "padding": 256}] * 40,
        {"layer": "Conv2D", "filters": 8192, "kernel_size": 31}), AT),
    ("padding without end", on("shapes", *[{"layer": "ZeroPadding2D", "padding": 256}] * 255), AT),
    ("a long sequence",
     listed({"layer": "Flatten"}, {"layer": "RepeatVector", "n": 4096},
            {"layer": "LSTM", "units": 8192, "return_sequences": True}), AT),
    ("layers multiplied", listed({"layer": "Flatten"}, multiplied(3, DENSE)), AT),
    ("layers multiplied by searches", listed(multiplied(8, DENSE, named("n")), n=whole(1, 64)), AT),
    ("layers that are never there, multiplied", listed(multiplied(8, ABSENT | {"repeat": named("z")}, named("n")),
     z=whole(0, 1), n=whole(1, 64)), AT),
    ("a condition that multiplies", listed(multiplied(8, DENSE | {"when": {"deep": [True]}}), deep=among(True, False)),
     AT),
    ("many entries that are never there", listed(DENSE, *[{"layers": [ABSENT] * 200}] * 20), [*AT, 6, "layers"]),
    ("entries looked at again and again", listed({"layers": [DENSE, *[ABSENT] * 200], "repeat": 64}), AT),
    ("a billion in a batch", mlp(hyperparameters={"batch_size": 10**9}), ["hyperparameters", "batch_size"]),
    ("a batch by a search", mlp(hyperparameters={"batch_size": whole(1, 10**9)}),
     ["hyperparameters", "batch_size", "high"]),
    ("a million epochs", mlp(training={"epochs": 10**6}), ["training", "epochs"]),
    ("more epochs than the operator allows", mlp(training={"epochs": 10_001}), ["training", "epochs"]),
    ("a thousand folds", mlp(training={"folds": 1_000}), ["training", "folds"]),
    ("a thousand repeats", mlp(training={"repeats": 1_000}), ["training", "repeats"]),
    ("a billion trials", mlp(budget={"trials": 10**9}), ["budget", "trials"]),
    ("a million hidden layers", mlp(hyperparameters={"hidden_layers": 10**6}), ["hyperparameters", "hidden_layers"]),
    ("a million at once", mlp(execution={"parallel_trials": 10**6}), ["execution", "parallel_trials"]),
    ("thousands of parameters", mlp(hyperparameters={f"p{i}": flt() for i in range(2_000)}), ["hyperparameters"]),
    ("a number beyond 64 bits", listed({"layer": "Dense", "units": 10**400}), [*AT, 0, "units"]),
    ("a sleep of years", function(hyperparameters={"x0": 0.5, "delay_seconds": 1e9}),
     ["hyperparameters", "delay_seconds"]),
]  # fmt: skip
DEFINITIONS: list[DefinitionCase] = [*CODE, *BOMBS]

_DUPLICATES = "{" + ",".join(f'"{i:x}":1' for i in range(100_000)) + ',"0":1}'
_DEEP = '{"a":' * 100_000
_JSON = {"Content-Type": "application/json"}
REQUESTS: list[RequestCase] = [
    ("a hundred thousand keys, one of them twice", "POST", "/v1/studies", _DUPLICATES.encode(), _JSON, 400,
     "BAD_REQUEST", None),
    ("objects without a bottom", "POST", "/v1/studies", _DEEP.encode(), _JSON, 400, "BAD_REQUEST", None),
    ("a number of a million digits", "POST", "/v1/studies", b"1" * 900_000, _JSON, 400, "BAD_REQUEST", None),
    ("YAML", "POST", "/v1/studies", b"!!python/object/apply:os.system ['id']", {"Content-Type": "application/yaml"},
     415, "UNSUPPORTED_MEDIA_TYPE", None),
    ("a pickle for a definition", "POST", "/v1/studies", b"\x80\x04cos\nsystem\n.",
     {"Content-Type": "application/octet-stream"}, 415, "UNSUPPORTED_MEDIA_TYPE", None),
    ("a pickle called JSON", "POST", "/v1/studies", b"\x80\x04cos\nsystem\n.", _JSON, 400, "BAD_REQUEST", None),
]  # fmt: skip
