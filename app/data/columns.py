"""What a column holds: its owner's word, else what its cells look like."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.data.cells import Cells, distinct
from app.data.limits import MAX_CATEGORIES, MAX_VALUE_CHARACTERS
from app.data.reading import Reading, refuse
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
    count = len(cells.words)
    lengths = [len(word) for word in cells.words]
    spaced = sum(word.count(" ") + 1 for word in cells.words) / max(1, count)
    is_short = max(lengths, default=0) <= MAX_VALUE_CHARACTERS
    is_key = cells.missing == 0 and spaced == 1 and is_short and _all_differ(cells)
    if is_key and (named_id or cells.rows >= ID_ROWS):
        return "id"
    if count <= FEW_VALUES and is_short:
        return "category"
    if spaced >= WORDS_OF_A_TEXT or count > MAX_CATEGORIES or count * ROWS_A_VALUE > cells.rows:
        return "text"
    return "category" if is_short else "text"


def _all_differ(cells: Cells) -> bool:
    values = cells.numbers if cells.numbers is not None else cells.codes
    return len(np.unique(np.asarray(values))) == cells.rows > 1


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
        return Typed(Column(cells.name, kind, "dropped", cells.missing), cells)
    if kind == "category":
        codes, values = distinct(cells)
        check_values(cells.name, values, MAX_CATEGORIES, "a category")
        return Typed(Column(cells.name, kind, "feature", cells.missing, values), cells, codes)
    return Typed(Column(cells.name, kind, "feature", cells.missing), cells)


def check_values(name: str, values: tuple[str, ...], most: int, of: str) -> None:
    """Refuse values of a category or classes that are too many or too long."""
    if len(values) > most:
        refuse(("file", name), f"Expected at most {most:,} values of {of}. Received: {len(values):,}")
    longest = max(values, key=len, default="")
    if len(longest) > MAX_VALUE_CHARACTERS:
        refuse(
            ("file", name),
            f"Expected values of {of} of at most {MAX_VALUE_CHARACTERS} characters. Received: {longest[:40]!r}…",
        )
