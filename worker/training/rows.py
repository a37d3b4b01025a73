"""A member's row as the arrays of a snapshot, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.trainer.snapshots import Arrays, UnreadableSnapshot
from worker.training.program import Row

Weights = tuple[NDArray[np.float32], NDArray[np.float32]]
"""A member's weights, [P], and moving statistics, [S]."""


def arrays_of(row: Row, epochs: int, best: Weights | None) -> dict[str, NDArray[Any]]:
    """The arrays of a member with `epochs` epochs behind it; `best` are the weights of its selected epoch."""
    arrays: dict[str, NDArray[Any]] = {
        "weights": row.weights,
        "statistics": row.statistics,
        "steps": np.array(row.count, np.int64),
        "epochs": np.array(epochs, np.int64),
        **{f"slot_{i}": slot for i, slot in enumerate(row.slots)},
    }
    if best is not None:
        arrays["best_weights"], arrays["best_statistics"] = best
    return arrays


def restored(arrays: Arrays, fresh: Row) -> tuple[Row, Weights | None]:
    """The row and the best weights that `arrays` hold; what belongs to the trial alone is that of the `fresh` row.

    Raises:
        UnreadableSnapshot: they are another network's or optimizer's.
    """
    slots = tuple(_like(arrays, f"slot_{i}", slot) for i, slot in enumerate(fresh.slots))
    if f"slot_{len(slots)}" in arrays:
        raise UnreadableSnapshot(f"Expected {len(slots)} slots of the optimizer. Received more.")
    row = replace(
        fresh,
        weights=_like(arrays, "weights", fresh.weights),
        statistics=_like(arrays, "statistics", fresh.statistics),
        count=int(_like(arrays, "steps", np.zeros((), np.int64))),
        slots=slots,
    )
    _like(arrays, "epochs", np.zeros((), np.int64))
    if "best_weights" not in arrays:
        return row, None
    best = _like(arrays, "best_weights", fresh.weights), _like(arrays, "best_statistics", fresh.statistics)
    return row, best


def _like(arrays: Arrays, name: str, model: NDArray[Any]) -> NDArray[Any]:
    """The array `name`, which must have the shape and type of `model`."""
    array = arrays.get(name)
    if array is None or array.shape != model.shape or array.dtype != model.dtype:
        received = "none" if array is None else f"{array.dtype} {list(array.shape)}"
        raise UnreadableSnapshot(f"Expected {name} of {model.dtype} {list(model.shape)}. Received: {received}")
    return array
