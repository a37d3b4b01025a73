"""What is predicted: classes by name, or numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.data.cells import Cells
from app.data.columns import values_of
from app.data.limits import MAX_CLASSES
from app.data.narrow import narrowest
from app.data.reading import Loc, refuse
from app.domain.families import Task

FEW_CLASSES = 20
"""Distinct whole numbers up to which a target is taken for classes."""
ROWS_A_CLASS = 2
"""Rows of each class at least: one to learn from, one to judge by."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is predicted: `y` is [n], indices in `labels` or float32 values; `rarest` counts the rarest class' rows."""

    task: Task
    y: NDArray[Any]
    labels: tuple[str, ...] = ()
    rarest: int | None = None


def target_of(cells: Cells, task: Literal["auto", "classification", "regression"], loc: Loc) -> Target:
    """The target in a column. Text and truth values are classes, few whole numbers are, other numbers are values.

    Raises:
        InvalidDataset: cells are missing, classes are too many or too rare, or the numbers all the same.
    """
    if cells.kind == "time":
        refuse(loc, "Expected classes or numbers to predict. Received times")
    if cells.missing:
        refuse(
            loc,
            f"Expected a value of the target in every row. Received {cells.missing:,} without, "
            f"the first in row {cells.first_missing():,}",
        )
    if task == "auto":
        task = _likely_task(cells)
    if task == "regression":
        return _values(cells, loc)
    codes, labels = values_of(cells, MAX_CLASSES, loc, "classes", ". Is it regression?")
    if len(labels) < 2:
        refuse(loc, f"Expected at least two classes. Received: {', '.join(map(repr, labels))}")
    if "" in labels:
        refuse(loc, "Expected classes with names. Received an empty one")
    counts = np.bincount(codes, minlength=len(labels))
    rarest = int(counts.min())
    if rarest < ROWS_A_CLASS:
        refuse(
            loc,
            f"Expected at least {ROWS_A_CLASS} rows of every class, to train on and to validate by. "
            f"Received {rarest} of {labels[int(counts.argmin())]!r}",
        )
    return Target("classification", narrowest(codes), labels, rarest)


def _likely_task(cells: Cells) -> Task:
    if cells.kind != "number":
        return "classification"
    few = cells.is_integral and len(np.unique(np.asarray(cells.numbers))) <= FEW_CLASSES
    return "classification" if few else "regression"


def _values(cells: Cells, loc: Loc) -> Target:
    if cells.numbers is None:
        refuse(loc, f"Expected numbers for regression. Received strings, such as {cells.words[0].as_py()[:40]!r}")
    with np.errstate(over="ignore"):
        values = cells.numbers.astype(np.float32)
    if not np.isfinite(values).all():
        refuse(loc, "Expected numbers that fit 32 bits. Received larger ones")
    if values.min() == values.max():
        refuse(loc, f"Expected numbers that differ. Received {values[0]:g} in every row")
    return Target("regression", values)
