"""From a file to a data set in its kept form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.data.arrays import from_arrays
from app.data.cells import Cells
from app.data.columns import Typed, feature, type_of
from app.data.limits import MAX_TEXT_CHARACTERS, DataLimits
from app.data.normal import Normal, pack_texts
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
    return Normal(replace(normal.dataset, name=name, description=description, origin=origin), normal.arrays)


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


def _from_table(table: Sequence[Cells], reading: Reading) -> Normal:
    by_name = {cells.name: cells for cells in table}
    target_name = _target_name(by_name, reading)
    for name in reading.columns:
        if name not in by_name or name == target_name:
            refuse(("columns", name), f"Expected a column other than the target: {_names(by_name)}. Received: {name!r}")
    for i, name in enumerate(reading.drop):
        if name not in by_name or name == target_name:
            refuse(("drop", i), f"Expected a column other than the target: {_names(by_name)}. Received: {name!r}")
    target = target_of(by_name[target_name], reading.task, ("target",))
    columns = [
        feature(cells, type_of(cells, reading), dropped=cells.name in reading.drop)
        for cells in table
        if cells.name != target_name
    ]
    rows = by_name[target_name].rows
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
    words, codes = text.cells.words, np.asarray(text.cells.codes)
    if any(len(word) > MAX_TEXT_CHARACTERS for word in words):
        refuse(("file", text.column.name), f"Expected texts of at most {MAX_TEXT_CHARACTERS:,} characters.")
    warnings = _warnings(columns)
    if text.column.missing:
        warnings.append(f"{text.column.name}: {text.column.missing:,} empty texts are taken as they are.")
    described = tuple(typed.column for typed in columns)
    arrays = pack_texts([words[code] if code >= 0 else "" for code in codes.tolist()])
    return Normal(_described(target, "text", (), rows, described, warnings), {**arrays, "y": target.y})


def _vectors(columns: Sequence[Typed], target: Target, reading: Reading) -> Normal:
    warnings = _warnings(columns)
    kept: list[Typed] = []
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
    numbers = [t for t in kept if t.codes is None]
    categories = [t for t in kept if t.codes is not None]
    arrays: dict[str, NDArray[Any]] = {"y": target.y}
    rows = len(target.y)
    arrays["numbers"] = np.empty((rows, len(numbers)), np.float32)
    for i, typed in enumerate(numbers):
        with np.errstate(over="ignore"):
            arrays["numbers"][:, i] = typed.cells.numbers
        if np.isinf(arrays["numbers"][:, i]).any():
            refuse(("file", typed.column.name), "Expected numbers that fit 32 bits. Received larger ones")
    codes = [np.asarray(t.codes, np.int32) for t in categories]
    arrays["codes"] = np.stack(codes, 1) if codes else np.empty((rows, 0), np.int32)
    return Normal(_described(target, "vector", (len(kept),), rows, tuple(described), warnings), arrays)


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
    values = typed.cells.numbers if typed.cells.numbers is not None else typed.cells.codes
    return values is not None and len(np.unique(values)) == 1
