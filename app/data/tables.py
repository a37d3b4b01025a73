"""Reading tables: CSV and Parquet by Arrow, into cells. Sizes are looked at before contents are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from app.data.cells import MISSING_WORDS, TRUTHS, Cells, number_cells
from app.data.limits import MAX_COLUMNS, DataLimits
from app.data.reading import refuse

DELIMITERS = ",;\t|"
HEAD_BYTES = 65_536
"""Of a CSV file, to look at its header."""
BLOCK_BYTES = 2**20
BLOCK_BYTES_A_COLUMN = 2**13
"""Wide tables are read in larger blocks: each block makes an array of every column, a kilobyte and more of overhead."""
CELL_BYTES = 8
"""What a cell of a table takes in memory at least, however short it is in the file."""
ROWS_AT_ONCE = 65_536
ISO_TIME = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")


def read_csv(path: Path, delimiter: str | None, limits: DataLimits) -> list[Cells]:
    """The columns of a CSV file with a header, in UTF-8.

    Raises:
        InvalidDataset: it is none, or over the limits.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head.strip():
        refuse(("file",), "Expected a CSV file with a header and rows. Received an empty one")
    if b"\0" in head:
        refuse(("file",), "Expected text in UTF-8. Received bytes that are no text: is it another format?")
    _check_header(head, delimiter or _likely_delimiter(head))
    parse = pa.csv.ParseOptions(delimiter=delimiter or _likely_delimiter(head), newlines_in_values=True)
    names = _header(path, parse)
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False,
    )  # fmt: skip
    block = max(BLOCK_BYTES, BLOCK_BYTES_A_COLUMN * len(names))
    read = pa.csv.ReadOptions(use_threads=False, block_size=block)
    parts: list[list[pa.Array]] = [[] for _ in names]
    rows = size = 0
    try:
        with pa.csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert) as batches:
            for batch in batches:
                rows, size = rows + batch.num_rows, size + batch.nbytes
                _check_size(rows, max(size, rows * len(names) * CELL_BYTES), limits)
                for part, column in zip(parts, batch.columns, strict=True):
                    part.append(_trimmed(column).dictionary_encode())
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        refuse(("file",), f"Expected a CSV file in UTF-8 whose rows have {len(names)} cells. Received: {_words(error)}")
    _check_rows(rows)
    return [_of_strings(name, _joined(part)) for name, part in zip(names, parts, strict=True)]


def _trimmed(column: pa.Array) -> pa.Array:
    """Cells without white space around them, null where they are empty; of ASCII, as an exported model can trim it."""
    trimmed = pc.ascii_trim_whitespace(column)
    return pc.if_else(pc.is_in(trimmed, value_set=pa.array(MISSING_WORDS)), pa.scalar(None, pa.string()), trimmed)


def _likely_delimiter(head: bytes) -> str:
    line = head.lstrip(b"\xef\xbb\xbf").partition(b"\n")[0].decode("utf-8", errors="replace")
    return max(DELIMITERS, key=line.count)


def _check_header(head: bytes, delimiter: str) -> None:
    if not delimiter.isprintable() and delimiter != "\t":
        refuse(("delimiter",), f"Expected a printable character or a tab. Received: {delimiter!r}")
    if not delimiter.isascii() or delimiter in "\"'":
        refuse(("delimiter",), f"Expected an ASCII character that is no quote. Received: {delimiter!r}")
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            refuse(("file",), f"Expected text in UTF-8. Received a byte that is none at position {error.start}")


def _header(path: Path, parse: pa.csv.ParseOptions) -> list[str]:
    read = pa.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES)
    try:
        with pa.csv.open_csv(path, read_options=read, parse_options=parse) as batches:
            names = list(batches.schema.names)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        refuse(("file",), f"Expected a CSV file with a header and rows in UTF-8. Received: {_words(error)}")
    check_names(names)
    return names


def read_parquet(path: Path, limits: DataLimits) -> list[Cells]:
    """The columns of a Parquet file.

    Raises:
        InvalidDataset: it is none, over the limits, or has columns of a type that no model takes.
    """
    try:
        with pa.parquet.ParquetFile(path) as file:
            meta, schema = file.metadata, file.schema_arrow
            unpacked = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
            _check_size(meta.num_rows, max(unpacked, meta.num_rows * len(schema) * CELL_BYTES), limits)
            check_names(list(schema.names))
            _check_rows(meta.num_rows)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        refuse(("file",), f"Expected a Parquet file. Received: {_words(error)}")
    kinds = {field.name: _kind(field) for field in schema}
    strings = [name for name, kind in kinds.items() if kind == "string"]
    parts: dict[str, list[pa.Array]] = {name: [] for name, kind in kinds.items() if kind != "time"}
    rows = size = 0
    try:
        # Strings stay in their dictionaries: a long one that is repeated a million times is held once.
        with pa.parquet.ParquetFile(path, read_dictionary=strings, pre_buffer=False) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(parts), use_threads=False):
                rows, size = rows + batch.num_rows, size + batch.nbytes
                _check_size(rows, size, limits)
                for name, part in parts.items():
                    part.append(_dictionary(batch.column(name)) if name in strings else batch.column(name))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
        refuse(("file",), f"Expected a Parquet file that can be read. Received: {_words(error)}")
    return [
        Cells(name, "time", meta.num_rows) if kind == "time" else _of_arrow(name, kind, parts[name])
        for name, kind in kinds.items()
    ]


def _dictionary(column: pa.Array) -> pa.DictionaryArray:
    if not pa.types.is_dictionary(column.type):
        return column.cast(pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(column.indices, column.dictionary.cast(pa.string()))


def _kind(field: pa.Field) -> str:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_temporal(kind):
        return "time"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "string"
    return refuse(("file", field.name), f"Expected numbers, truth values, times or strings. Received: {kind}")


def _of_arrow(name: str, kind: str, parts: list[pa.Array]) -> Cells:
    if kind == "string":
        return _of_strings(name, _joined(parts), infer=False)
    column = pa.chunked_array(parts)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    numbers = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    numbers = np.array(numbers, np.float64)  # missing cells are NaN by now
    _check_finite(name, numbers)
    return number_cells(name, "boolean" if kind == "boolean" else "number", numbers)


def _joined(parts: list[pa.Array]) -> pa.DictionaryArray:
    return pa.chunked_array(parts).unify_dictionaries().combine_chunks()


def _of_strings(name: str, column: Any, *, infer: bool = True) -> Cells:
    """Strings as cells; as numbers, truth values or times where `infer` and all of them are."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    words = column.dictionary
    codes = column.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    rows = len(codes)
    if infer and not len(words):
        return number_cells(name, "number", np.full(rows, np.nan))
    if infer and (numbers := _numbers(words)) is not None:
        values = np.append(numbers, np.nan)[codes]
        _check_finite(name, values)
        return number_cells(name, "number", values)
    texts = tuple(words.to_pylist())
    if infer and {text.lower() for text in texts} <= TRUTHS.keys():
        truths = np.array([*(TRUTHS[text.lower()] for text in texts), np.nan])
        return number_cells(name, "boolean", truths[codes])
    if infer and all(ISO_TIME.fullmatch(text) for text in texts):
        return Cells(name, "time", rows)
    return Cells(name, "string", rows, codes=codes, words=texts)


def _numbers(words: pa.Array) -> Any:
    try:
        return pc.utf8_trim_whitespace(words).cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return None


def _check_finite(name: str, numbers: Any) -> None:
    if np.isinf(numbers).any():
        row = int(np.argmax(np.isinf(numbers))) + 1
        refuse(("file", name), f"Expected finite numbers. Received an infinite one in row {row}")


def check_names(names: list[str]) -> None:
    """Refuse names of columns that are empty, too many, or not different."""
    if len(names) > MAX_COLUMNS:
        refuse(("file",), f"Expected at most {MAX_COLUMNS:,} columns. Received: {len(names):,}")
    seen: set[str] = set()
    for i, name in enumerate(names):
        if not name.strip() or len(name) > 255 or not name.isprintable():
            refuse(("file",), f"Expected names of columns of 1 to 255 printable characters. Column {i + 1} has none")
        if name in seen:
            refuse(("file", name), "Expected names of columns that differ. Received this one twice")
        seen.add(name)


def _check_size(rows: int, size: int, limits: DataLimits) -> None:
    if rows > limits.rows:
        refuse(("file",), f"Expected at most {limits.rows:,} rows, this service's limit. Received more")
    if size > limits.unpacked_bytes:
        refuse(("file",), f"Expected at most {limits.unpacked_bytes:,} bytes unpacked, this service's limit")


def _check_rows(rows: int) -> None:
    if rows == 0:
        refuse(("file",), "Expected rows below the header. Received none")


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
