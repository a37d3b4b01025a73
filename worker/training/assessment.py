"""How a member does on the validation part: a confusion matrix of classes, or the residuals of values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.families import Scalar
from worker.training.data import Split
from worker.training.evaluation import outputs_of
from worker.training.program import Program
from worker.training.rows import Weights

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


def assess(program: Program, hyperparameters: Mapping[str, Scalar], weights: Weights) -> dict[str, Any]:
    """The artifact's content as JSON values, of the member with these weights."""
    split = program.split
    outputs = outputs_of(program, hyperparameters, weights, split.validation)
    if split.info.task == "classification":
        return confusion(split.info.classes, split.validation.y, outputs.argmax(1))
    unit = split.targets.deviation, split.targets.mean
    targets, predicted = (values * unit[0] + unit[1] for values in (split.validation.y.astype(np.float64), outputs))
    return residuals(targets, predicted[:, 0])


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
