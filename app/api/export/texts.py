"""Exports as text: JSON as the list of trials has it, and CSV (RFC 4180).

A spreadsheet takes a cell that begins like a formula for one, whoever wrote it. In CSV such texts get an apostrophe in
front; JSON and Parquet have them as they are, and so has CSV all numbers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import Any

from app.api.export.rows import LEADING, TRAILING, Export, error_words
from app.domain.json import NON_FINITE, loads

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""What cells begin with that spreadsheets compute."""


def as_json(export: Export) -> Iterator[bytes]:
    """`{"items": [trials]}`."""
    commas = chain([""], repeat(","))
    yield b'{"items":['
    yield from export.written(lambda texts: (next(commas) + ",".join(texts)).encode())
    yield b'],"next_cursor":null}'


def as_csv(export: Export) -> Iterator[bytes]:
    """A line a trial, after one of the columns' names."""
    names, metrics = list(export.definition.hyperparameters), export.objectives
    yield _lines(
        [[*LEADING, *(f"hyperparameters.{n}" for n in names), *(f"values.{m}" for m in metrics), *TRAILING, "error"]]
    )
    yield from export.written(lambda texts: _lines([_cells(loads(text), names, metrics) for text in texts]))


def _cells(trial: dict[str, Any], names: Sequence[str], metrics: Sequence[str]) -> list[object]:
    values = trial["values"] or {}
    cells = [trial[name] for name in LEADING]
    cells += [trial["hyperparameters"].get(name) for name in names]
    cells += [values.get(metric) for metric in metrics]
    cells += [trial[name] for name in TRAILING]
    cells.append(error_words(trial))
    return cells


def _lines(rows: Sequence[list[object]]) -> bytes:
    """Lines of CSV, booleans as in JSON."""
    text = io.StringIO()
    csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(FORMULAS) and value not in NON_FINITE:
        return f"'{value}"
    return value
