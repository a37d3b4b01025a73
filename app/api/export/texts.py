"""Exports as text: JSON as the list of trials has it, and CSV (RFC 4180).

A spreadsheet takes a cell that begins like a formula for one, whoever wrote it. In CSV such texts get an apostrophe in
front; JSON and Parquet have them as they are, and so has CSV all numbers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from app.api.export.rows import LEADING, TRAILING, Export, error_words
from app.domain.json import NON_FINITE

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""What cells begin with that spreadsheets compute."""


def as_json(export: Export) -> Iterator[str]:
    """`{"items": [trials]}`."""
    yield '{"items":['
    comma = ""
    for batch in export.texts():
        yield comma + ",".join(batch)
        comma = ","
    yield '],"next_cursor":null}'


def as_csv(export: Export) -> Iterator[str]:
    """A line a trial, after one of the columns' names."""
    names, metrics = list(export.definition.hyperparameters), export.objectives
    yield _lines(
        [[*LEADING, *(f"hyperparameters.{n}" for n in names), *(f"values.{m}" for m in metrics), *TRAILING, "error"]]
    )
    for batch in export.trials():
        yield _lines([_cells(trial, names, metrics) for trial in batch])


def _cells(trial: dict[str, Any], names: Sequence[str], metrics: Sequence[str]) -> list[object]:
    values = trial["values"] or {}
    cells = [trial[name] for name in LEADING]
    cells += [trial["hyperparameters"].get(name) for name in names]
    cells += [values.get(metric) for metric in metrics]
    cells += [trial[name] for name in TRAILING]
    cells.append(error_words(trial))
    return cells


def _lines(rows: Sequence[list[object]]) -> str:
    """Lines of CSV, booleans as in JSON."""
    text = io.StringIO()
    csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(FORMULAS) and value not in NON_FINITE:
        return f"'{value}"
    return value
