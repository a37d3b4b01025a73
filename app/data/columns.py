"""What a column holds: its owner's word, else what its cells look like."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from app.data.cells import Cells, count_distinct, distinct
from app.data.limits import MAX_CATEGORIES, MAX_VALUE_CHARACTERS
from app.data.narrow import narrowest
from app.data.reading import Loc, Reading, refuse
from app.domain.datasets import Column, ColumnType

FEW_VALUES = 20
"""Distinct strings up to which a column is a category, whatever the number of rows."""
ROWS_A_VALUE = 5
"""Rows for each distinct string at least, where there are more of them."""
WORDS_OF_A_TEXT = 4.0
"""Words of a string on average from which many distinct ones are a text."""
ID_ROWS = 20
"""Rows from which a column of distinct strings without spaces is an id and not a text."""
ID_NAME = re.compile(r"(^|[_\W])(id|uuid|guid|index|key)$|^unnamed|^rowid$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Typed:
    """A column with its type: a category's or a text's strings as `codes` of the column's or of `words`."""

    column: Column
    cells: Cells
    codes: NDArray[np.int32] | None = None


def infer_type(cells: Cells) -> ColumnType:
    """What a column holds by the look of it."""
    if cells.kind in ("boolean", "time"):
        return cells.kind
    named_id = ID_NAME.search(cells.name) is not None and cells.missing == 0
    if cells.kind == "number":
        return "id" if named_id and cells.is_integral and _all_differ(cells) else "number"
    import pyarrow.compute as pc

    count = len(cells.words)
    spaced = (pc.sum(pc.count_substring(cells.words, " ")).as_py() or 0) / count + 1 if count else 0.0
    is_short = longest(cells) <= MAX_VALUE_CHARACTERS
    is_key = cells.missing == 0 and spaced == 1 and is_short and _all_differ(cells)
    if is_key and (named_id or cells.rows >= ID_ROWS):
        return "id"
    if count <= FEW_VALUES and is_short:
        return "category"
    if spaced >= WORDS_OF_A_TEXT or count > MAX_CATEGORIES or count * ROWS_A_VALUE > cells.rows:
        return "text"
    return "category" if is_short else "text"


def longest(cells: Cells) -> int:
    """Characters of the longest of its strings."""
    import pyarrow.compute as pc

    return int(pc.max(pc.utf8_length(cells.words)).as_py() or 0)


def _all_differ(cells: Cells) -> bool:
    return count_distinct(cells) == cells.rows > 1


def type_of(cells: Cells, reading: Reading) -> ColumnType:
    """What a column holds: as its owner says, where the cells can be that.

    Raises:
        InvalidDataset: they can't.
    """
    wanted = reading.columns.get(cells.name)
    if wanted is None:
        return infer_type(cells)
    fits = {
        "number": cells.kind in ("number", "boolean"),
        "boolean": cells.kind == "boolean" or _is_binary(cells),
        "category": cells.kind != "time",
        "text": cells.kind == "string",
    }
    if not fits.get(wanted, True):
        refuse(
            ("columns", cells.name), f"Expected a type that its cells have. Received {wanted!r}: they are {_are(cells)}"
        )
    return wanted


def _is_binary(cells: Cells) -> bool:
    return cells.numbers is not None and bool(np.isin(cells.numbers, (0.0, 1.0)).all() or cells.kind == "boolean")


def _are(cells: Cells) -> str:
    return {"number": "numbers", "boolean": "truth values", "time": "times", "string": "strings"}[cells.kind]


def feature(cells: Cells, kind: ColumnType, *, dropped: bool) -> Typed:
    """The column as a feature, or as one that is left out."""
    if dropped or kind in ("time", "id"):
        return Typed(Column(cells.name, kind, "dropped", cells.missing), _emptied(cells))
    if kind == "category":
        _refuse_zero_bytes(cells)
        codes, values = values_of(cells, MAX_CATEGORIES, ("file", cells.name), "values of a category")
        column = Column(cells.name, kind, "feature", cells.missing, values)
        return Typed(column, _emptied(cells), narrowest(codes))
    return Typed(Column(cells.name, kind, "feature", cells.missing), _single(cells))


def _refuse_zero_bytes(cells: Cells) -> None:
    """Refuse a category with a zero byte in a value: NumPy drops those at the end, and an exported model knows none."""
    import pyarrow.compute as pc

    if cells.words is None:
        return
    zeroed = cells.words.filter(pc.match_substring(cells.words, "\0"))
    if len(zeroed):
        refuse(
            ("file", cells.name),
            f"Expected values of a category without zero bytes. Received: {zeroed[0].as_py()[:40]!r}. "
            "Leave the column out, or set its type to text",
        )


def _emptied(cells: Cells) -> Cells:
    """The cells without what they hold, which nobody needs any more."""
    return replace(cells, numbers=None, codes=None, words=None)


def _single(cells: Cells) -> Cells:
    """The cells with the numbers that a model takes of them, which have 32 bits.

    Raises:
        InvalidDataset: one is larger than that.
    """
    if cells.numbers is None or cells.numbers.dtype != np.float64:
        return cells
    with np.errstate(over="ignore"):
        numbers = cells.numbers.astype(np.float32)
    if np.isinf(numbers).any():
        refuse(("file", cells.name), "Expected numbers that fit 32 bits. Received larger ones")
    return replace(cells, numbers=numbers)


def values_of(
    cells: Cells, most: int, loc: Loc, what: str, hint: str = ""
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """The cells as codes, [n] int32 with -1 where missing, and the values that they stand for, in order.

    Raises:
        InvalidDataset: there are more than `most`, or long ones.
    """
    count = count_distinct(cells)
    if count > most:
        refuse(loc, f"Expected at most {most:,} {what}. Received: {count:,}{hint}")
    if cells.words is not None and (found := longest(cells)) > MAX_VALUE_CHARACTERS:
        refuse(loc, f"Expected {what} of at most {MAX_VALUE_CHARACTERS} characters. Received one of {found:,}")
    return distinct(cells)
