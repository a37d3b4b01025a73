"""The text of a recipe: a plain Keras script that trains one trial again.

It repeats what `worker.training` did for the trial, by `Model.fit` from the same initial weights and in the same order
of samples: the data, its split and preparation, the network, the loss with its penalties, the optimizer and its
schedule, early stopping and the choice of the epoch. Dropout alone draws other masks, since Keras draws its own.

Text from users reaches the script as Python literals only (`repr`): none of it can become code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from app.domain.families import Scalar
from app.domain.metrics import GAINS
from app.domain.study import DatasetSpec, TrainingSpec
from worker.training.data.spectrogram import SMALLEST_DEVIATION_DB, LogMel
from worker.training.data.texts import Vocabulary
from worker.training.initializers import limit_of
from worker.training.keras_network import KerasNetwork
from worker.training.program import Program
from worker.training.recipe.data import loading
from worker.training.recipe.graph import Call, NoRecipe, calls, constructor, seeded_code
from worker.training.recipe.parts import (
    DECIBELS,
    KERAS_START,
    MAIN,
    OPTIMIZERS,
    PENALISE,
    PROGRESS,
    RATES,
    SCHEDULE,
    SPLIT,
    START,
    STRATIFIED,
)
from worker.training.runtime_parameters import AUGMENTS

if TYPE_CHECKING:
    from worker.training.extra_files import Run

REPEATED = frozenset({
    "activation", "batch_size", "decay_epochs", "decay_rate", "dropout", "final_fraction", "global_clipnorm",
    "l1", "l2", "label_smoothing", "learning_rate", "lr_schedule", "momentum", "nesterov", "optimizer", "power",
    "warmup_epochs", "weight_decay",
})  # fmt: skip
"""The hyperparameters that a recipe repeats by itself. Structural ones beyond these show in the model's layers."""
TRAINING = frozenset({"epochs", "seed", "precision", "select_epoch", "early_stopping", "deterministic"})
DATASET = frozenset({"name", "validation_fraction", "test_fraction", "split_seed"})
WITHOUT_EFFECT: dict[str, Scalar] = {
    "gradient_accumulation_steps": 1, **{f"augment_{name}": 0.0 for name in AUGMENTS},
}  # fmt: skip
"""Hyperparameters that neither a recipe repeats nor layers show, and the value of each that changes nothing."""


def recipe(program: Program, run: Run, exported: Any) -> str:
    """The script that trains the member again, whose model is `exported`.

    Raises:
        NoRecipe: the trial used something that a script would have to leave out.
    """
    _check_repeatable(program, run)
    load, needs_file = loading(program.split.info)
    _, layers = calls(exported)
    sections = [
        _head(program, run, needs_file),
        _constants(program, run),
        load,
        _split(program),
        _network(program, layers),
        _start(program, run, layers, exported),
        _optimizer(run),
        _metrics(program, run),
        MAIN.replace("@FILE", _FILE_ARGUMENT if needs_file else "").replace(
            "@DATA", "arguments.data" if needs_file else "None"
        ),
    ]
    return "\n\n".join(section.strip("\n") + "\n" for section in sections if section)


_FILE_ARGUMENT = """    parser.add_argument("--data", required=True, help="an .npz file with the arrays x and y")
"""


def _check_repeatable(program: Program, run: Run) -> None:
    if any(not resume.own for resume in run.member.resume):
        raise NoRecipe("The trial went on from the weights of another one: see its lineage.")
    for name, value in run.hyperparameters.items():
        declared = program.signature.declaration.declared(name)
        # Structural ones show in the layers, and so do the rates that a network reads by itself.
        shows = name in program.network.columns or (declared is not None and declared.structural)
        if name in WITHOUT_EFFECT:
            shows = value == WITHOUT_EFFECT[name]
        if name not in REPEATED and not shows:
            raise NoRecipe(f"A recipe can't repeat {name} = {value!r} yet.")
    if isinstance(program.split.preparation, Vocabulary):
        raise NoRecipe("A recipe can't repeat the preparation of texts yet.")
    for spec, known, what in ((run.request.training, TRAINING, "training"), (run.request.dataset, DATASET, "dataset")):
        _check_fields(spec, known, what)
    if run.request.training.precision != "float32":
        raise NoRecipe(f"A recipe can't repeat training.precision = {run.request.training.precision!r} yet.")


def _check_fields(spec: TrainingSpec | DatasetSpec | None, known: frozenset[str], what: str) -> None:
    """Refuse what a section says beyond what recipes know of it."""
    for name, field in type(spec).model_fields.items() if spec is not None else ():
        value = getattr(spec, name)
        if name not in known and value != field.get_default(call_default_factory=True):
            raise NoRecipe(f"A recipe can't repeat {what}.{name} = {value!r} yet.")


def _head(program: Program, run: Run, needs_file: bool) -> str:
    words = ["Train one trial of a tuning study again, with Keras and scikit-learn: nothing else is needed.", ""]
    metrics = run.history[run.selected_epoch]
    shown = ", ".join(f"{name} {value:.6g}" for name, value in metrics.items() if name != "seconds")
    words += [f"Family {program.signature.family}, data set {program.split.info.name}, trial {run.member.number}."]
    words += [f"Its selected epoch, number {run.selected_epoch} of {len(run.history)}, had:", f"{shown}."]
    if _draws(program, run):
        words += ["", "Dropout and noise are drawn anew: its metrics will be near these, and not the same."]
    if needs_file:
        words += ["", "The data come from an .npz file with the arrays x (features) and y (targets): --data FILE."]
    text = "\n".join(words).replace("\\", "\\\\").replace('"""', "'''")
    return f'''"""{text}
"""

import argparse
import math

import keras
import numpy as np
from sklearn.model_selection import train_test_split'''


def _draws(program: Program, run: Run) -> bool:
    """Whether training draws at random beyond weights and the order of samples."""
    if isinstance(program.network, KerasNetwork):
        return bool(program.architecture.masks)
    return bool(run.hyperparameters.get("dropout")) and bool(program.architecture.masks)


def _constants(program: Program, run: Run) -> str:
    training, dataset = run.request.training, run.request.dataset
    if dataset is None:
        raise NoRecipe("The trial trained on no data set.")
    stopping = training.early_stopping
    rows = {
        "SEED": run.member.seed,
        "EPOCHS": run.member.epochs or training.epochs,
        "BATCH_SIZE": program.batch_size,
        "VALIDATION_FRACTION": dataset.validation_fraction,
        "TEST_FRACTION": dataset.test_fraction,
        "SPLIT_SEED": dataset.split_seed,
        "SHAPE": tuple(program.split.raw_shape),
        "CLASSES": list(program.split.info.classes),
    }
    lines = [f"{name} = {value!r}" for name, value in rows.items()]
    lines += ["# The epoch is selected by this metric; by none: the last one is.", *_selection(program, run)]
    if stopping is not None:
        directions = {o.metric: o.maximizes for o in run.request.objectives}
        rises = directions.get(stopping.metric, stopping.metric in GAINS)
        lines.append("# Metric, patience, least change, and whether the metric rises as it gets better.")
        lines.append(f"STOPPING = {(stopping.metric, stopping.patience, stopping.min_delta, rises)!r}")
    else:
        lines.append("STOPPING = None")
    return "\n".join(lines)


def _selection(program: Program, run: Run) -> list[str]:
    """Which metric selects the epoch, as `worker.progress` does it."""
    first = next((o for o in run.request.objectives if o.metric in run.history[0]), None)
    stopping = run.request.training.early_stopping
    by_epoch = {"loss", "val_loss", *(f"{part}{_score(program)}" for part in ("", "val_"))}
    if run.request.training.select_epoch == "last":
        first = None
    for metric in [*([first.metric] if first else []), *([stopping.metric] if stopping else [])]:
        if metric not in by_epoch:
            raise NoRecipe(f"A recipe can't follow {metric}: it follows {', '.join(sorted(by_epoch))}.")
    if first is None:
        return ["OBJECTIVE, MAXIMIZE = None, False"]
    return [f"OBJECTIVE, MAXIMIZE = {first.metric!r}, {first.direction == 'maximize'}"]


def _score(program: Program) -> str:
    return "accuracy" if program.split.info.task == "classification" else "mae"


def _split(program: Program) -> str:
    stratify = STRATIFIED if program.split.info.task == "classification" else "None"
    return SPLIT.replace("@STRATA", stratify)


def _normalization(program: Program, layer: Any, before: str) -> list[str]:
    """The lines that fit the layer to the training part, as `worker.training.data` does; it takes `before`."""
    if isinstance(program.split.preparation, LogMel):
        fitted = constructor(layer, mean="mean", variance="variance")
        least = repr(SMALLEST_DEVIATION_DB**2)
        text = DECIBELS.replace("@BEFORE", before).replace("@LEAST", least).replace("@FITTED", fitted)
        return text.splitlines()
    how = program.signature.hyperparameters.get("normalization", "standard")
    if how == "minmax":
        fitted = constructor(layer, mean="low", variance="np.square(high - low)")
        return ["    low, high = x_train.min(0), x_train.max(0)", f"    normalization = {fitted}"]
    if how == "none":
        return [f"    normalization = {constructor(layer, mean='0.0', variance='1.0')}"]
    fitted = constructor(layer, mean="", variance="")
    return [f"    normalization = {fitted}", "    normalization.adapt(x_train)"]


def _network(program: Program, layers: Sequence[Call]) -> str:
    """`build(x_train, y_train)`: the model, the network that is trained, and its layers by variable."""
    split = program.split
    lines = [
        "def build(x_train, y_train):",
        '    """The model from raw features to what it predicts, and the same one up to the loss, which is trained."""',
        '    raw = keras.Input(SHAPE, name="raw_features")',
    ]
    before = len(split.preparation.layers())
    *own, last = layers
    for i, call in enumerate(own):
        code = constructor(call.layer)
        if i < before and type(call.layer).__name__ == "Normalization":
            lines += _normalization(program, call.layer, call.arguments)
            code = "normalization"
        lines.append(f"    {call.name} = {code}({call.arguments})")
    if split.info.task == "regression":
        after = "keras.layers.Rescaling(deviation, mean)"
        lines.append("    mean, deviation = target_scale(y_train)")
    else:
        after = "keras.layers.Softmax()"
    lines += [
        f"    predicted = {after}({last.arguments})",
        f"    return keras.Model(raw, predicted), keras.Model(raw, {last.arguments})",
    ]
    if split.info.task == "regression":
        scale = [
            "def target_scale(y_train):",
            '    """What the network\'s target is standardised by: mean and deviation of the training part."""',
            "    return float(y_train.mean()), float(y_train.std()) or 1.0",
            "",
            "",
        ]
        lines = scale + lines
    return "\n".join(lines)


def _start(program: Program, run: Run, layers: Sequence[Call], exported: Any) -> str:
    """The code that gives the network the initial weights of the trial, and the penalties that its layers lack.

    Raises:
        NoRecipe: a script can't give it the same.
    """
    order = {id(v): i for i, v in enumerate(v for call in layers for v in call.layer.trainable_variables)}
    own, _ = program.network.variables(exported)
    places = [order[id(variable)] for variable in own]
    if not isinstance(program.network, KerasNetwork):
        limits = [(place, limit_of(spec)) for place, spec in zip(places, program.architecture.weights, strict=True)]
        return START.replace("@LIMITS", repr([pair for pair in limits if pair[1] is not None]))
    lines = []
    for place, variable, initializer in zip(places, own, program.network.initializers(run.member.seed), strict=True):
        code = seeded_code(initializer, tuple(variable.shape))
        if code is not None:
            lines.append(f"        {place}: {code},\n")
    return KERAS_START.strip("\n").replace("@INITIALIZERS", "".join(lines)) + "\n" + _penalties(run, own)


def _penalties(run: Run, variables: Sequence[Any]) -> str:
    """The lines that penalise the kernels of a list of layers, whose layers know nothing of it."""
    l1, l2 = float(run.hyperparameters["l1"]), float(run.hyperparameters["l2"])
    if not l1 and not l2:
        return ""
    if any(variable.regularizer is not None for variable in variables):
        raise NoRecipe("A recipe can't repeat l1 or l2 beside penalties that layers bring along.")
    return PENALISE.replace("@L1", repr(l1)).replace("@L2", repr(l2))


def _optimizer(run: Run) -> str:
    values = run.hyperparameters
    numbers = {name: float(values[name]) for name in ("learning_rate", "momentum", "weight_decay", "global_clipnorm")}
    name = str(values["optimizer"])
    common = ["learning_rate"]
    if numbers["weight_decay"] or name == "adamw":
        common.append(f"weight_decay={numbers['weight_decay']!r}")
    if numbers["global_clipnorm"]:
        common.append(f"global_clipnorm={numbers['global_clipnorm']!r}")
    if name in {"sgd", "rmsprop"} and numbers["momentum"]:
        common.append(f"momentum={numbers['momentum']!r}")
    if name == "sgd" and values["nesterov"]:
        common.append("nesterov=True")
    make = f"keras.optimizers.{OPTIMIZERS[name]}({', '.join(common)})"
    schedule, warmup = str(values["lr_schedule"]), float(values["warmup_epochs"])
    rate = repr(numbers["learning_rate"])
    if schedule == "constant" and not warmup:
        return f'''def optimizer(steps_per_epoch):
    """The update rule, with Keras' own constants where none are given."""
    learning_rate = {rate}
    return {make}
'''
    names = ("decay_rate", "decay_epochs", "final_fraction", "power")
    constants = {name: float(values[name]) for name in names if name.upper() in RATES[schedule]}
    lines = [f"{name.upper()} = {value!r}" for name, value in constants.items()]
    if "progress" in RATES[schedule]:
        lines.append(f"SCHEDULED_EPOCHS = {run.request.training.epochs}")
    lines += [f"LEARNING_RATE = {rate}", f"WARMUP_EPOCHS = {warmup!r}"]
    progress = PROGRESS if "progress" in RATES[schedule] else ""
    body = SCHEDULE.replace("@PROGRESS", progress).replace("@FACTOR", RATES[schedule]).replace("@MAKE", make)
    return "\n".join(lines) + "\n\n\n" + body.strip("\n")


def _metrics(program: Program, run: Run) -> str:
    """How the network is compiled, and what its metrics mean."""
    smoothing = float(run.hyperparameters.get("label_smoothing", 0.0))
    if program.split.info.task == "classification":
        return f'''SCORE = "accuracy"
LOSS = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing={smoothing!r})


def target_of(y, y_train):
    """What the network is trained on: one-hot classes."""
    return np.eye(len(CLASSES), dtype="float32")[y]


def unit_of(y_train):
    """What the score is multiplied by to be in the target's own unit."""
    return 1.0'''
    return '''SCORE = "mae"
LOSS = keras.losses.MeanSquaredError()


def target_of(y, y_train):
    """What the network is trained on: the standardised target."""
    mean, deviation = target_scale(y_train)
    return ((y - mean) / deviation).astype("float32")[:, np.newaxis]


def unit_of(y_train):
    """What the score is multiplied by to be in the target's own unit."""
    return target_scale(y_train)[1]'''
