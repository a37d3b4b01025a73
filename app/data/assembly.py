"""From a file to a data set in its kept form."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.data.arrays import from_arrays
from app.data.cells import Cells
from app.data.columns import Typed, feature, longest, type_of
from app.data.limits import MAX_TEXT_CHARACTERS, DataLimits
from app.data.narrow import whole_type
from app.data.normal import FORM, Normal, pack_words
from app.data.reading import Reading, refuse
from app.data.targets import Target, target_of
from app.domain.datasets import Column, ColumnType, Dataset, Origin


def read_dataset(
    path: Path, reading: Reading, limits: DataLimits, *, name: str, description: str, origin: Origin
) -> Normal:
    """The data set in a file, read so.

    Raises:
        InvalidDataset: the file or the reading is no good; it says where.
    """
    if path.stat().st_size == 0:
        refuse(("file",), "Expected a file with data. Received an empty one")
    if reading.format == "npz":
        normal = from_arrays(path, reading, limits)
    else:
        normal = _from_table(_table(path, reading, limits), reading)
    dataset = replace(normal.dataset, name=name, description=description, origin=origin, form=FORM)
    return Normal(dataset, normal.arrays)


def _table(path: Path, reading: Reading, limits: DataLimits) -> list[Cells]:
    from app.data.tables import read_csv, read_parquet

    _refuse_array_fields(reading)
    if reading.format == "csv":
        return read_csv(path, reading.delimiter, limits)
    if reading.delimiter is not None:
        refuse(("delimiter",), "Expected none: it is for CSV files alone.")
    return read_parquet(path, limits)


def _refuse_array_fields(reading: Reading) -> None:
    for field in ("x", "y", "sample_rate"):
        if getattr(reading, field) is not None:
            refuse((field,), f"Expected none: it is about .npz archives. Received: {getattr(reading, field)!r}")
    if reading.input_kind in ("image", "audio"):
        refuse(("input_kind",), f"Expected a table of vectors or text, or a .npz. Received: {reading.input_kind!r}")


def _from_table(table: list[Cells], reading: Reading) -> Normal:
    """The data set in a table, which is emptied: a column is let go as soon as what is kept of it is made."""
    by_name = {cells.name: cells for cells in table}
    target_name = _target_name(by_name, reading)
    for name in reading.columns:
        if name not in by_name or name == target_name:
            refuse(("columns", name), f"Expected a column other than the target: {_names(by_name)}. Received: {name!r}")
    for i, name in enumerate(reading.drop):
        if name not in by_name or name == target_name:
            refuse(("drop", i), f"Expected a column other than the target: {_names(by_name)}. Received: {name!r}")
    names = list(by_name)
    table.clear()
    target = target_of(by_name.pop(target_name), reading.task, ("target",))
    rows = len(target.y)
    dropped = frozenset(reading.drop)
    columns = []
    for name in names:
        if name != target_name:
            cells = by_name.pop(name)
            columns.append(feature(cells, type_of(cells, reading), dropped=name in dropped))
    normal = _texts(columns, target, rows) if _is_text(columns, reading) else _vectors(columns, target, reading)
    target_type: ColumnType = "number" if target.task == "regression" else "category"
    described = [*normal.dataset.columns, Column(target_name, target_type, "target", 0, target.labels)]
    return Normal(replace(normal.dataset, columns=tuple(described)), normal.arrays)


def _target_name(by_name: dict[str, Cells], reading: Reading) -> str:
    if reading.target is None:
        refuse(("target",), f"Expected the name of the column to predict: {_names(by_name)}. Received: none")
    if reading.target not in by_name:
        refuse(("target",), f"Expected one of the columns {_names(by_name)}. Received: {reading.target!r}")
    return reading.target


def _names(by_name: dict[str, Cells]) -> str:
    names = list(by_name)
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")


def _is_text(columns: Sequence[Typed], reading: Reading) -> bool:
    """Whether the samples are texts: there is one text, and nothing else to learn from."""
    features = [typed for typed in columns if typed.column.role == "feature"]
    texts = [typed for typed in features if typed.column.type == "text"]
    if reading.input_kind == "text" and (len(texts) != 1 or len(features) != 1):
        refuse(
            ("input_kind",),
            f"Expected one column of type text and no other feature: set `columns`, `drop` the rest. "
            f"Received: {', '.join(f'{t.column.name} ({t.column.type})' for t in features) or 'none'}",
        )
    return reading.input_kind != "vector" and len(features) == len(texts) == 1


def _texts(columns: Sequence[Typed], target: Target, rows: int) -> Normal:
    (text,) = (typed for typed in columns if typed.column.role == "feature")
    if longest(text.cells) > MAX_TEXT_CHARACTERS:
        refuse(("file", text.column.name), f"Expected texts of at most {MAX_TEXT_CHARACTERS:,} characters.")
    warnings = _warnings(columns)
    if text.column.missing:
        warnings.append(f"{text.column.name}: {text.column.missing:,} empty texts are taken as they are.")
    described = tuple(typed.column for typed in columns)
    arrays = pack_words(text.cells.words, np.asarray(text.cells.codes))
    return Normal(_described(target, "text", (), rows, described, warnings), {**arrays, "y": target.y})


def _vectors(columns: list[Typed], target: Target, reading: Reading) -> Normal:
    warnings = _warnings(columns)
    kept: deque[Typed] = deque()
    described: list[Column] = []
    for typed in columns:
        column = typed.column
        if column.role == "feature" and column.type == "text":
            warnings.append(
                f"{column.name}: left out, a text beside other columns. To train on it, drop the other columns."
            )
            column = Column(column.name, column.type, "dropped", column.missing)
        elif column.role == "feature":
            kept.append(typed)
        described.append(column)
    if not kept:
        refuse(("file",), f"Expected a column to learn from beside {reading.target!r}. Received: none that is kept")
    shape, rows = (len(kept),), len(target.y)
    numbers = deque(np.asarray(t.cells.numbers) for t in kept if t.codes is None)
    codes = deque(t.codes for t in kept if t.codes is not None)
    kept.clear()
    columns.clear()
    arrays = {"numbers": _side_by_side(numbers, rows), "codes": _side_by_side(codes, rows), "y": target.y}
    return Normal(_described(target, "vector", shape, rows, tuple(described), warnings), arrays)


def _side_by_side(columns: deque[NDArray[Any]], rows: int) -> NDArray[Any]:
    """Columns, [rows] each, as a matrix, [rows, columns], of the narrowest type that holds them; they are let go.

    The type is float32 where 16 bits don't hold all of the numbers, or some are missing.
    """
    whole = [c for c in columns if c.dtype.kind in "iu"]
    low, high = min((int(c.min()) for c in whole), default=0), max((int(c.max()) for c in whole), default=0)
    kind = (whole_type(low, high) if len(whole) == len(columns) else None) or np.dtype(np.float32)
    matrix = np.empty((rows, len(columns)), kind)
    for i in range(len(columns)):
        matrix[:, i] = columns.popleft()
    return matrix


def _described(
    target: Target, kind: Any, shape: tuple[int, ...], rows: int, columns: tuple[Column, ...], warnings: list[str]
) -> Dataset:
    return Dataset(
        name="",
        description="",
        task=target.task,
        input_kind=kind,
        shape=shape,
        rows=rows,
        classes=len(target.labels),
        class_names=target.labels,
        rarest=target.rarest,
        columns=columns,
        warnings=tuple(warnings),
    )


def _warnings(columns: Sequence[Typed]) -> list[str]:
    found = []
    for typed in columns:
        name, kind = typed.column.name, typed.column.type
        if kind == "time" and typed.column.role == "dropped":
            found.append(f"{name}: left out, it holds times. Make numbers of them that mean something to a model.")
        elif kind == "id" and typed.column.role == "dropped":
            found.append(f"{name}: left out, it looks like an id. To use it, say its type in `columns`.")
        elif typed.column.role == "feature" and _is_constant(typed):
            found.append(f"{name}: every row has the same value.")
        elif typed.column.role == "feature" and typed.column.missing and kind in ("number", "boolean"):
            found.append(
                f"{name}: {typed.column.missing:,} missing cells get the mean of the training part and a mark."
            )
    return found


def _is_constant(typed: Typed) -> bool:
    values = next((v for v in (typed.codes, typed.cells.numbers, typed.cells.codes) if v is not None), None)
    return values is not None and bool((values == values[0]).all() or np.isnan(values).all())
