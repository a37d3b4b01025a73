"""Exports as Apache Parquet: a row a trial, a column of its own type for each hyperparameter, value and metric.

Read them with `pandas.read_parquet`, DuckDB, Spark or anything else that reads Parquet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from app.api.export.rows import LEADING, TRAILING, Export, error_words
from app.domain.families import Scalar
from app.domain.json import decode_number, loads
from app.domain.space import Categorical, Float, Int
from app.errors import LibraryMissing

if TYPE_CHECKING:
    import pyarrow as pa

MOST_METRICS = 1_000
"""Columns of metrics: a study has fewer, but for those of before there was a limit on names."""
TIMES = ("created_at", "started_at", "finished_at")


def require_pyarrow() -> None:
    """Return where Parquet can be written.

    Raises:
        LibraryMissing: pyarrow isn't installed.
    """
    try:
        import pyarrow as pa  # noqa: F401 - asked for before the answer begins
    except ImportError:
        raise LibraryMissing("pyarrow", "An export to Parquet", "Ask for format=csv or json, or install it") from None


def as_parquet(export: Export) -> Iterator[bytes]:
    """The file in pieces: a group of rows for each batch. Trials are read twice, first for the metrics' names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    metrics = _metric_names(export)
    schema = _schema(export, metrics)
    sink = _Sink()
    writer = pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="zstd")

    def write(texts: Sequence[str]) -> bytes:
        rows = [_row(loads(text), schema, export, metrics) for text in texts]
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        return sink.taken()

    yield from export.written(write)
    writer.close()
    yield sink.taken()


def _metric_names(export: Export) -> list[str]:
    """The metrics that any trial has, in the order in which they come; the first `MOST_METRICS` of them."""
    names: dict[str, None] = {}
    for text in export.metrics():
        names.update(dict.fromkeys(loads(text)))
        if len(names) >= MOST_METRICS:
            break
    return list(names)[:MOST_METRICS]


def _schema(export: Export, metrics: Sequence[str]) -> pa.Schema:
    import pyarrow as pa

    kinds = {
        "number": pa.int64(),
        "feasible": pa.bool_(),
        "attempt": pa.int32(),
        "selected_epoch": pa.int32(),
        "epochs": pa.int32(),
        "duration_seconds": pa.float64(),
        **dict.fromkeys(("parent", "first_epoch", "reused_from"), pa.int64()),
        **dict.fromkeys(TIMES, pa.timestamp("us", tz="UTC")),
    }
    fields = [pa.field(name, kinds.get(name, pa.string())) for name in LEADING]
    for name, declared in export.definition.hyperparameters.items():
        fields.append(pa.field(f"hyperparameters.{name}", _kind_of(declared)))
    fields += [pa.field(f"values.{name}", pa.float64()) for name in export.objectives]
    fields += [pa.field(f"metrics.{name}", pa.float64()) for name in metrics]
    fields += [pa.field(name, kinds.get(name, pa.string())) for name in TRAILING]
    fields.append(pa.field("error", pa.string()))
    return pa.schema(fields, metadata={"fettle.study": export.study.public_id, "fettle.name": export.study.name})


def _kind_of(declared: Float | Int | Categorical | Scalar) -> pa.DataType:
    """The type of a hyperparameter's column; text where its values are of several kinds."""
    import pyarrow as pa

    if isinstance(declared, Float):
        return pa.float64()
    if isinstance(declared, Int):
        return pa.int64()
    values = declared.choices if isinstance(declared, Categorical) else [declared]
    if all(isinstance(value, bool) for value in values):
        return pa.bool_()
    if any(isinstance(value, bool | str) for value in values):
        return pa.string()
    return pa.int64() if all(isinstance(value, int) for value in values) else pa.float64()


def _row(trial: Mapping[str, Any], schema: pa.Schema, export: Export, metrics: Sequence[str]) -> dict[str, Any]:
    row = {name: trial[name] for name in (*LEADING, *TRAILING)}
    row |= {name: None if row[name] is None else datetime.fromisoformat(row[name]) for name in TIMES}
    for name in export.definition.hyperparameters:
        column = f"hyperparameters.{name}"
        row[column] = _fitting(trial["hyperparameters"].get(name), schema.field(column).type)
    values, reported = trial["values"] or {}, trial["metrics"] or {}
    row |= {f"values.{name}": _number(values.get(name)) for name in export.objectives}
    row |= {f"metrics.{name}": _number(reported.get(name)) for name in metrics}
    row["error"] = error_words(dict(trial))
    return row


def _number(value: float | str | None) -> float | None:
    return None if value is None else decode_number(value)


def _fitting(value: Scalar | None, kind: pa.DataType) -> Scalar | None:
    """The value as its column's type has it: an enqueued trial may have 1 where 1.0 is declared."""
    if value is None or isinstance(value, bool):
        return str(value).lower() if isinstance(value, bool) and str(kind) == "string" else value
    if str(kind) == "string":
        return str(value)
    if str(kind) == "double":
        return float(value)
    return int(value) if str(kind) == "int64" else value


class _Sink:
    """A file that is written once, front to back, and taken away as it grows."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._position = 0

    def write(self, piece: bytes) -> int:
        self._pieces.append(bytes(piece))
        self._position += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """All that is written is there to be taken."""

    def close(self) -> None:
        """The pieces stay until they are taken."""

    def taken(self) -> bytes:
        """What was written since the last call."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
