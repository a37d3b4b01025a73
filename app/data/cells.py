"""A column as its file has it, before anything is decided about it: numbers, truth values, times or strings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.data.narrow import narrowest

TRUTHS = {"true": 1.0, "false": 0.0}
MISSING_WORDS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
"""What an empty cell of a CSV file may say."""


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of a column.

    Numbers and truth values are `numbers`, [n] of the narrowest dtype that holds them exactly, NaN where missing.
    Strings are `codes`, [n] int32 indices in `words`, -1 where missing; `words` is an Arrow array of the strings that
    there are, in the order of the file: each takes its bytes there, and several times as much in Python. Times have
    neither.
    """

    name: str
    kind: Literal["number", "boolean", "time", "string"]
    rows: int
    numbers: NDArray[Any] | None = None
    codes: NDArray[np.int32] | None = None
    words: Any = None

    @property
    def missing(self) -> int:
        """Empty cells."""
        if self.numbers is not None:
            return int(np.isnan(self.numbers).sum())
        return 0 if self.codes is None else int((self.codes < 0).sum())

    def first_missing(self) -> int:
        """The row, from 1, of the first empty cell."""
        empty = np.isnan(self.numbers) if self.numbers is not None else np.asarray(self.codes) < 0
        return int(np.argmax(empty)) + 1

    @property
    def is_integral(self) -> bool:
        """Whether all of its cells are whole numbers."""
        if self.numbers is None:
            return False
        if self.numbers.dtype.kind in "iu":
            return True
        present = self.numbers[~np.isnan(self.numbers)]
        return bool((present == np.floor(present)).all())


def count_distinct(cells: Cells) -> int:
    """How many values the cells have, empty ones apart."""
    if cells.numbers is not None:
        present = np.sort(cells.numbers[~np.isnan(cells.numbers)])  # np.unique takes several times as much memory
        return int((present[1:] != present[:-1]).sum()) + min(1, len(present))
    return len(cells.words)


def distinct(cells: Cells) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """The cells as codes, [n] int32 with -1 where missing, of their distinct values in order: numbers by size.

    For few values: each is a Python string of the result (`count_distinct`).
    """
    if cells.numbers is not None:
        present = ~np.isnan(cells.numbers)
        values, inverse = np.unique(cells.numbers[present], return_inverse=True)
        codes = np.full(cells.rows, -1, np.int32)
        codes[present] = inverse
        names = ("false", "true") if cells.kind == "boolean" else None
        return codes, tuple(names[int(v)] if names else number_word(v) for v in values.tolist())
    words = cells.words.to_pylist()
    order = sorted(range(len(words)), key=words.__getitem__)
    renamed = np.full(len(words) + 1, -1, np.int32)  # the last one stands for -1
    renamed[order] = np.arange(len(order))
    return renamed[np.asarray(cells.codes)], tuple(words[i] for i in order)


def number_word(value: float) -> str:
    """A number as people write it."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))


def number_cells(name: str, kind: Literal["number", "boolean"], values: Any) -> Cells:
    """Cells of numbers, NaN where missing."""
    numbers = narrowest(np.asarray(values))
    return Cells(name, kind, len(numbers), numbers=numbers)
