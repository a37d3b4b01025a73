"""How an exported model does on the validation part: a confusion matrix of classes, or the residuals of values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.training.data import Split
from worker.training.export import ROWS_AT_ONCE

MOST_CLASSES = 500
"""A matrix of more classes would be larger than its model."""
SHOWN_PREDICTIONS = 500
"""Pairs of target and prediction that residuals show, evenly over the targets."""
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def name_of(split: Split) -> str | None:
    """What the artifact is called; None where there are too many classes for a matrix."""
    if split.info.task == "regression":
        return "residuals.json"
    return "confusion_matrix.json" if len(split.info.classes) <= MOST_CLASSES else None


def assess(split: Split, network: Any) -> dict[str, Any]:
    """The artifact's content as JSON values; `network` takes prepared samples."""
    outputs = validation_outputs(split, network)
    if split.info.task == "classification":
        return confusion(split.info.classes, split.validation.y, outputs.argmax(1))
    targets = split.validation.y.astype(np.float64) * split.targets.deviation + split.targets.mean
    return residuals(targets, outputs[:, 0])


def validation_outputs(split: Split, network: Any) -> NDArray[np.float64]:
    """What a network gives for the validation part, [n, outputs]: probabilities, or values in their unit.

    The part is prepared already, and kept as that alone: `network` is a model without its preparation.
    """
    starts = range(0, len(split.validation), ROWS_AT_ONCE)
    pieces = [network(split.validation.x[start : start + ROWS_AT_ONCE], training=False) for start in starts]
    outputs: NDArray[np.float64] = np.concatenate([piece.numpy().astype(np.float64) for piece in pieces])
    return outputs


def confusion(classes: tuple[str, ...], labels: NDArray[Any], predicted: NDArray[Any]) -> dict[str, Any]:
    """How many samples of each class (a row) were taken for which (a column), in the order of `classes`."""
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(matrix, (labels.astype(np.int64), predicted), 1)
    return {
        "part": "validation",
        "samples": len(labels),
        "accuracy": float((labels == predicted).mean()),
        "classes": list(classes),
        "matrix": matrix.tolist(),
    }


def residuals(targets: NDArray[np.float64], predicted: NDArray[np.float64]) -> dict[str, Any]:
    """Prediction minus target, summed up, and some pairs of both; `r2` is None where all targets are the same."""
    error = predicted - targets
    spread = float(np.square(targets - targets.mean()).sum())
    shown = np.argsort(targets, kind="stable")
    shown = shown[np.linspace(0, len(shown) - 1, min(len(shown), SHOWN_PREDICTIONS)).round().astype(int)]
    return {
        "part": "validation",
        "samples": len(targets),
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "bias": float(error.mean()),
        "r2": None if spread == 0 else 1.0 - float(np.square(error).sum()) / spread,
        "quantiles": {str(q): float(np.quantile(error, q)) for q in QUANTILES},
        "predictions": [{"target": float(targets[i]), "predicted": float(predicted[i])} for i in shown],
    }
