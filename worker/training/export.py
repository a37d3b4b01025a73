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
from worker.training.data import Split, model_entry
from worker.training.evaluation import scores_of
from worker.training.network import load
from worker.training.program import Program
from worker.training.rows import Weights


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


def test_metrics(program: Program, hyperparameters: Mapping[str, Scalar], weights: Weights) -> dict[str, float]:
    """How a member does on the test part: `test_loss` and `test_accuracy`, or `test_loss`, `test_mae` and `test_mse`.

    The loss is what `val_loss` is of the validation part; both errors are in the target's own unit. Empty where the
    split has no test part.
    """
    split = program.split
    if not len(split.test):
        return {}
    found = scores_of(program, hyperparameters, weights, split.prepared_test)
    if split.info.task == "classification":
        return {"test_loss": found.loss, "test_accuracy": found.score}
    squared = (found.loss - found.penalty) * split.targets.deviation**2
    return {"test_loss": found.loss, "test_mae": found.score, "test_mse": squared}
