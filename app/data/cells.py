"""A column as its file has it, before anything is decided about it: numbers, truth values, times or strings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TRUTHS = {"true": 1.0, "false": 0.0}
MISSING_WORDS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
"""What an empty cell of a CSV file may say."""


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of a column.

    Numbers and truth values are `numbers`, [n], NaN where missing. Strings are `codes`, [n] int32 indices in `words`,
    -1 where missing; `words` are in the order of the file. Times have neither.
    """

    name: str
    kind: Literal["number", "boolean", "time", "string"]
    rows: int
    numbers: Floats | None = None
    codes: NDArray[np.int32] | None = None
    words: tuple[str, ...] = ()

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
        present = self.numbers[~np.isnan(self.numbers)]
        return bool((present == np.floor(present)).all())


def distinct(cells: Cells) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """The cells as codes, [n] int32 with -1 where missing, of their distinct values in order: numbers by size."""
    if cells.numbers is not None:
        present = ~np.isnan(cells.numbers)
        values, inverse = np.unique(cells.numbers[present], return_inverse=True)
        codes = np.full(cells.rows, -1, np.int32)
        codes[present] = inverse
        names = ("false", "true") if cells.kind == "boolean" else None
        return codes, tuple(names[int(v)] if names else number_word(v) for v in values.tolist())
    codes = np.asarray(cells.codes)
    used = np.unique(codes[codes >= 0])
    words = [cells.words[i] for i in used.tolist()]
    order = sorted(range(len(words)), key=words.__getitem__)
    renamed = np.full(len(cells.words) + 1, -1, np.int32)  # the last one stands for -1
    for code, index in enumerate(order):
        renamed[used[index]] = code
    return renamed[codes], tuple(words[i] for i in order)


def number_word(value: float) -> str:
    """A number as people write it."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))


def number_cells(name: str, kind: Literal["number", "boolean"], values: Any) -> Cells:
    """Cells of numbers."""
    numbers = np.asarray(values, np.float64)
    return Cells(name, kind, len(numbers), numbers=numbers)
