"""Reading tables: CSV and Parquet by Arrow, into cells. Sizes are looked at before contents are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from app.data.cells import MISSING_WORDS, TRUTHS, Cells, number_cells
from app.data.limits import MAX_COLUMNS, DataLimits
from app.data.reading import parsing, refuse

DELIMITERS = ",;\t|"
HEAD_BYTES = 65_536
"""Of a CSV file, to look at its header."""
BLOCK_BYTES = 2**20
BLOCK_BYTES_A_COLUMN = 2**13
"""Wide tables are read in larger blocks: each block makes an array of every column, a kilobyte and more of overhead."""
CELL_BYTES = 8
"""What a cell of a table takes in memory at least, however short it is in the file."""
LONGEST_TRUTH = 5
MOST_TRUTHS = 48
"""Ways to write true and false in upper and lower case."""
ROWS_AT_ONCE = 65_536
BUFFERS_BYTES = 2**24
LEAST_BUFFER_BYTES = 2**12
"""Of a Parquet file, what is read ahead of all columns together, and of each: without a bound, all of a row group."""
ISO_TIME = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$"
"""For Arrow's regular expressions (RE2): `$` is the end of the text alone."""


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
    with (
        parsing(f"a CSV file in UTF-8 whose rows have {len(names)} cells"),
        pa.csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert) as batches,
    ):
        for batch in batches:
            rows, size = rows + batch.num_rows, size + batch.nbytes
            _check_size(rows, max(size, rows * len(names) * CELL_BYTES), limits)
            for part, column in zip(parts, batch.columns, strict=True):
                part.append(_trimmed(column).dictionary_encode())
    _check_rows(rows)
    table: list[Cells] = []
    for i, name in enumerate(names):
        with parsing("a CSV file", ("file", name)):
            column = joined(parts[i])
        parts[i] = []  # let go column by column: not all of them are held in both forms
        table.append(of_strings(name, column))
    return table


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
    with (
        parsing("a CSV file with a header and rows in UTF-8"),
        pa.csv.open_csv(path, read_options=read, parse_options=parse) as batches,
    ):
        names = list(batches.schema.names)
    check_names(names)
    return names


def read_parquet(path: Path, limits: DataLimits) -> list[Cells]:
    """The columns of a Parquet file.

    Raises:
        InvalidDataset: it is none, over the limits, or has columns of a type that no model takes.
    """
    with parsing("a Parquet file"):
        arrow = pa.parquet.ParquetFile(path)
    with arrow as file:
        with parsing("a Parquet file whose columns have names and types"):
            schema, rows = file.schema_arrow, file.metadata.num_rows
            check_names(list(schema.names))
            kinds = {field.name: _kind(field) for field in schema}
            needed = _needed(file.metadata, schema, kinds)
        _check_size(rows, needed, limits)
        _check_rows(rows)
    parts = _parquet_parts(path, kinds, limits)
    table: list[Cells] = []
    for name, kind in kinds.items():
        if kind == "time":
            table.append(Cells(name, "time", rows))
            continue
        with parsing("a Parquet file that can be read", ("file", name)):
            cells = _of_arrow(name, kind, parts.pop(name))
        if cells.rows != rows:
            refuse(("file", name), f"Expected {rows:,} rows, as the file says. Received: {cells.rows:,}")
        table.append(cells)
    return table


def _needed(meta: pa.parquet.FileMetaData, schema: pa.Schema, kinds: dict[str, str]) -> int:
    """The bytes that columns take once they are read, by what the file says of itself.

    Strings stay in their dictionaries, so that they take what their pages do and a code for each row; a number takes
    the widest type that it is held in on the way. Times are not read.
    """
    cells: int = sum(_cell_bytes(schema.field(name)) * meta.num_rows for name, kind in kinds.items() if kind != "time")
    strings, pages = [i for i, kind in enumerate(kinds.values()) if kind == "string"], 0
    for group in range(meta.num_row_groups):
        for column in strings:
            pages += meta.row_group(group).column(column).total_uncompressed_size
    return cells + pages


def _cell_bytes(field: pa.Field) -> int:
    return max(CELL_BYTES, int(field.type.byte_width) if pa.types.is_decimal(field.type) else 0)


def _parquet_parts(path: Path, kinds: dict[str, str], limits: DataLimits) -> dict[str, list[pa.Array]]:
    """The columns in pieces, strings as codes and words. What they take is measured: files may say less of themselves.

    Each piece of a column of strings brings its words along; they are put together whenever all takes too much.
    """
    strings = [name for name, kind in kinds.items() if kind == "string"]
    parts: dict[str, list[pa.Array]] = {name: [] for name, kind in kinds.items() if kind != "time"}
    buffer = min(max(BUFFERS_BYTES // len(kinds), LEAST_BUFFER_BYTES), BLOCK_BYTES)
    rows = size = 0
    with (
        parsing("a Parquet file that can be read"),
        pa.parquet.ParquetFile(path, read_dictionary=strings, pre_buffer=False, buffer_size=buffer) as file,
    ):
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(parts), use_threads=False):
            batch.validate(full=True)
            rows += batch.num_rows
            for name, part in parts.items():
                piece = _dictionary(batch.column(name)) if name in strings else batch.column(name)
                size += piece.get_total_buffer_size()
                part.append(piece)
            if size > limits.unpacked_bytes:
                for name in strings:
                    parts[name] = [joined(parts[name])]
                size = sum(pa.chunked_array(part).get_total_buffer_size() for part in parts.values())
            _check_size(rows, size, limits)
    return parts


def _dictionary(column: pa.Array) -> pa.DictionaryArray:
    """Strings as codes of words that differ: the dictionary of a file may have one twice, or none in a place."""
    if not pa.types.is_dictionary(column.type):
        return column.cast(pa.string()).dictionary_encode()
    words, codes = column.dictionary.cast(pa.string()), column.indices.cast(pa.int32())
    encoded = words.dictionary_encode()
    if len(encoded.dictionary) == len(words):
        return pa.DictionaryArray.from_arrays(codes, words)
    return pa.DictionaryArray.from_arrays(encoded.indices.take(codes), encoded.dictionary)


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
    found = str(kind)[:100]
    return refuse(("file", field.name), f"Expected numbers, truth values, times or strings. Received: {found}")


def _of_arrow(name: str, kind: str, parts: list[pa.Array]) -> Cells:
    if kind == "string":
        return of_strings(name, joined(parts), infer=False)
    column = pa.chunked_array(parts)
    parts.clear()
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    numbers = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)  # missing cells are NaN by now
    del column
    _check_finite(name, numbers)
    return number_cells(name, "boolean" if kind == "boolean" else "number", numbers)


def joined(parts: list[pa.Array]) -> pa.DictionaryArray:
    """Pieces of a column of strings as one, whose words all differ and are all used."""
    whole = pa.chunked_array(parts).unify_dictionaries().combine_chunks()
    whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
    codes = whole.indices.fill_null(-1).to_numpy()
    is_used = np.zeros(len(whole.dictionary), bool)
    is_used[codes[codes >= 0]] = True
    if is_used.all():
        return whole
    used = np.flatnonzero(is_used)
    renamed = np.full(len(is_used) + 1, -1, np.int32)  # the last one stands for -1
    renamed[used] = np.arange(len(used))
    found = renamed[codes]
    return pa.DictionaryArray.from_arrays(pa.array(found, mask=found < 0), whole.dictionary.take(used))


def of_strings(name: str, column: pa.DictionaryArray, *, infer: bool = True) -> Cells:
    """Strings as cells; as numbers, truth values or times where `infer` and all of them are."""
    words = column.dictionary
    codes = column.indices.cast(pa.int32()).fill_null(-1).to_numpy()
    rows = len(codes)
    if infer and not len(words):
        return number_cells(name, "number", np.full(rows, np.nan, np.float32))
    if infer and (numbers := _numbers(words)) is not None:
        values = np.append(numbers, np.nan)[codes]
        _check_finite(name, values)
        return number_cells(name, "number", values)
    if infer and _are_truths(words):
        truths = np.array([*(TRUTHS[text.lower()] for text in words.to_pylist()), np.nan])
        return number_cells(name, "boolean", truths[codes])
    if infer and pc.all(pc.match_substring_regex(words, ISO_TIME)).as_py():
        return Cells(name, "time", rows)
    return Cells(name, "string", rows, codes=codes, words=words)


def _are_truths(words: pa.Array) -> bool:
    if len(words) > MOST_TRUTHS or pc.max(pc.binary_length(words)).as_py() > LONGEST_TRUTH:
        return False
    return {text.lower() for text in words.to_pylist()} <= TRUTHS.keys()


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
