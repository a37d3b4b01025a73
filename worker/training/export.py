"""A member's model as a plain Keras file: raw features in, class probabilities or the value out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from app.domain.families import Scalar
from worker.training.data import Split, model_entry, model_input
from worker.training.network import load
from worker.training.program import Program

ROWS_AT_ONCE = 1024
"""Samples that go through an exported model together."""


def exported_model(
    program: Program,
    hyperparameters: Mapping[str, Scalar],
    weights: NDArray[np.float32],
    statistics: NDArray[np.float32],
) -> Any:
    """The member with these weights, [P], and moving statistics, [S], as a Keras model of built-in layers alone.

    It takes raw features: [n, *shape] float32, [n] strings, or a table's columns by name where some are categories. It
    gives class probabilities, [n, classes], in the order of the data set's classes, or the value in the target's own
    unit, [n, 1].
    """
    split = program.split
    features, x = model_entry(split.preparation, split.raw_shape)
    x = program.network.applied(x, hyperparameters)
    model = keras.Model(features, _made_sense_of(split)(x), name=program.signature.family.replace("-", "_"))
    load(program.network, model, weights, statistics)
    return model


def prepared_model(
    program: Program,
    hyperparameters: Mapping[str, Scalar],
    weights: NDArray[np.float32],
    statistics: NDArray[np.float32],
) -> Any:
    """As `exported_model`, for samples that are prepared already, as the split has them."""
    split = program.split
    x = keras.Input(split.validation.x.shape[1:], dtype=str(split.validation.x.dtype))
    model = keras.Model(x, _made_sense_of(split)(program.network.applied(x, hyperparameters)))
    load(program.network, model, weights, statistics)
    return model


def _made_sense_of(split: Split) -> Any:
    """The last layer: probabilities of logits, or the value in the target's own unit."""
    if split.info.task == "classification":
        return keras.layers.Softmax(name="probabilities")
    return keras.layers.Rescaling(split.targets.deviation, split.targets.mean, name="value")


def save_model(model: Any, path: str) -> int:
    """Write `model` to `path` in Keras' format, whole or not at all; its size in bytes.

    Raises:
        OSError: the file can't be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Keras goes by the suffix.
    part = target.with_name(f".{target.name}.{os.getpid()}.keras")
    try:
        model.save(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target.stat().st_size


def test_metrics(model: Any, split: Split) -> dict[str, float]:
    """How an exported model does on the test part: `test_accuracy` and `test_loss`, or `test_mae` and `test_mse`.

    The loss is the cross-entropy without smoothing or penalties; both errors are in the target's own unit. Empty where
    the split has no test part.
    """
    if not len(split.test):
        return {}
    starts = range(0, len(split.test), ROWS_AT_ONCE)
    pieces = [model(model_input(split.test.x[start : start + ROWS_AT_ONCE]), training=False) for start in starts]
    outputs = np.concatenate([piece.numpy().astype(np.float64) for piece in pieces])
    if split.info.task == "regression":
        error = outputs[:, 0] - split.test.y
        return {"test_mae": float(np.abs(error).mean()), "test_mse": float(np.square(error).mean())}
    of_label = np.take_along_axis(outputs, split.test.y[:, np.newaxis].astype(np.int64), 1)
    smallest = float(np.finfo(np.float32).tiny)
    return {
        "test_accuracy": float((outputs.argmax(1) == split.test.y).mean()),
        "test_loss": float(-np.log(np.maximum(of_label, smallest)).mean()),
    }
