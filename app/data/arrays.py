"""A data set in the arrays of a `.npz`: images, recordings, texts, or vectors without names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.data.archives import Archive, Header, open_archive
from app.data.cells import Cells, number_cells
from app.data.columns import longest
from app.data.limits import MAX_TEXT_CHARACTERS, DataLimits
from app.data.narrow import WHOLE, narrowest
from app.data.normal import Arrays, Normal, pack_words
from app.data.reading import Loc, Reading, parsing, refuse
from app.data.targets import Target, target_of
from app.domain.datasets import Dataset
from app.domain.families import InputKind

PAIRS = (("x", "y"), ("x_train", "y_train"), ("X", "y"), ("features", "targets"), ("data", "target"))
"""Names that the arrays of samples and targets go by; `x_test` and `y_test` are added to theirs."""
CHANNELS = (1, 3, 4)
SMALLEST_SIDE = 2


def from_arrays(path: Path, reading: Reading, limits: DataLimits) -> Normal:
    """The data set in a `.npz`.

    Raises:
        InvalidDataset: the file or the reading is no good; it says where.
    """
    _refuse_table_fields(reading)
    with open_archive(path, limits) as archive:
        return _read(archive, reading)


def _read(archive: Archive, reading: Reading) -> Normal:
    headers, warnings = archive.headers, []
    x_name, y_name = _pair(headers, reading)
    x_names, y_names = [x_name], [y_name]
    tests = ("x_test", "y_test")
    if (x_name, y_name) == ("x_train", "y_train") and all(name in headers for name in tests):
        for names, name in ((x_names, "x_test"), (y_names, "y_test")):
            _check_alike(headers[names[0]], headers[name], name)
            names.append(name)
        warnings.append("x_test and y_test are added to the training arrays: a study splits all rows by its own seed.")
    elif unused := [name for name in headers if name not in (x_name, y_name)]:
        warnings.append(f"Arrays that are not used: {', '.join(unused)}.")
    x = headers[x_name]
    rows = sum(headers[name].shape[0] for name in x_names) if x.shape else 0
    if rows == 0:
        refuse(("file", x_name), "Expected samples. Received none")
    kind = _kind(x, reading, x_name)
    target = _target(archive, y_names, rows, reading)
    arrays, shape, maximum = _texts(archive, x_names) if kind == "text" else _numbers(archive, x_names, kind)
    dataset = Dataset(
        name="",
        description="",
        task=target.task,
        input_kind=kind,
        shape=shape,
        rows=rows,
        classes=len(target.labels),
        class_names=target.labels,
        rarest=target.rarest,
        maximum=maximum,
        sample_rate=reading.sample_rate or 0,
        warnings=tuple(warnings),
    )
    return Normal(dataset, {**arrays, "y": target.y})


def _refuse_table_fields(reading: Reading) -> None:
    for field in ("target", "delimiter"):
        if getattr(reading, field) is not None:
            refuse((field,), "Expected none: a .npz has arrays; name them by x and y.")
    for field in ("columns", "drop"):
        if getattr(reading, field):
            refuse((field,), "Expected none: the arrays of a .npz have no columns with names.")


def _pair(arrays: dict[str, Header], reading: Reading) -> tuple[str, str]:
    for name in (reading.x, reading.y):
        if name is not None and name not in arrays:
            refuse(("file", name), f"Expected one of the arrays {', '.join(arrays)}. Received: {name!r}")
    for x, y in ((reading.x, reading.y), *PAIRS):
        x_name, y_name = reading.x or x, reading.y or y
        if x_name in arrays and y_name in arrays:
            return str(x_name), str(y_name)
    return refuse(("file",), f"Expected arrays x and y, or their names in x and y. Received: {', '.join(arrays)}")


def _check_alike(first: Header, second: Header, name: str) -> None:
    alike = first.shape[1:] == second.shape[1:] and first.dtype.kind == second.dtype.kind
    if not alike or not first.shape or not second.shape:
        refuse(("file", name), f"Expected samples like those of training. Received: {second.dtype} {second.shape[1:]}")


def _target(archive: Archive, names: Sequence[str], rows: int, reading: Reading) -> Target:
    headers, loc = [archive.headers[name] for name in names], ("file", names[0])
    first = headers[0]
    is_flat = len(first.shape) == 1 or first.shape[1:] == (1,)
    if not is_flat or sum(header.shape[0] for header in headers) != rows:
        refuse(loc, f"Expected one target for each of {rows:,} samples. Received an array of shape {first.shape}")
    pieces = (piece.reshape(-1) for name in names for piece in archive.pieces(name))
    if first.dtype.kind in "SU":
        cells = _strings(pieces, loc)
    else:
        numbers = np.concatenate([_plain(piece) for piece in pieces])
        cells = number_cells(names[0], "boolean" if first.dtype.kind == "b" else "number", numbers)
        if np.isinf(np.asarray(cells.numbers)).any():
            refuse(loc, "Expected finite targets. Received an infinite one")
    return target_of(cells, reading.task, loc)


def _strings(pieces: Iterable[NDArray[Any]], loc: Loc) -> Cells:
    """Strings of fixed length, [k] each, as cells: those that differ in UTF-8, and which of them each row has."""
    import pyarrow as pa

    from app.data.tables import joined, of_strings

    parts = []
    for piece in pieces:
        with parsing("text in UTF-8", loc):
            binary = pa.array([s.encode() if isinstance(s, str) else s for s in piece.tolist()], pa.binary())
            parts.append(binary.cast(pa.string()).dictionary_encode())
    with parsing("text in UTF-8", loc):
        return of_strings(str(loc[-1]), joined(parts), infer=False)


def _kind(x: Header, reading: Reading, name: str) -> InputKind:
    """What the samples are: as said, else by their shape."""
    strings = x.dtype.kind in "SU"
    likely: InputKind | None = "text" if strings else {2: "vector", 3: "image", 4: "image"}.get(len(x.shape))  # type: ignore[assignment]
    kind = likely if reading.input_kind == "auto" else reading.input_kind
    dimensions = {"text": (1,), "vector": (2,), "audio": (2,), "image": (3, 4)}
    if kind is None or len(x.shape) not in dimensions[kind] or strings != (kind == "text"):
        refuse(
            ("file", name),
            "Expected vectors [n, features], images [n, height, width] or [n, height, width, channels], "
            f"recordings [n, samples] or strings [n]. Received: {x.dtype} of shape {x.shape}",
        )
    if kind == "audio" and reading.sample_rate is None:
        refuse(("sample_rate",), "Expected the samples a second of the recordings. Received: none")
    if kind != "audio" and reading.sample_rate is not None:
        refuse(("sample_rate",), f"Expected none: the samples are no recordings, but of kind {kind!r}.")
    return kind


def _numbers(archive: Archive, names: Sequence[str], kind: InputKind) -> tuple[Arrays, tuple[int, ...], float]:
    """Samples as they are kept, the shape of one, and the brightest value of a pixel."""
    header, loc = archive.headers[names[0]], ("file", names[0])
    shape, dtype = header.shape[1:], header.dtype
    if kind == "image":
        shape = (*shape, 1) if len(shape) == 2 else shape
        if shape[-1] not in CHANNELS:
            refuse(loc, f"Expected images of 1, 3 or 4 channels, the last axis. Received: {shape[-1]}")
        if min(shape[:2]) < SMALLEST_SIDE:
            refuse(loc, f"Expected images of 2×2 pixels at least. Received: {shape[0]}×{shape[1]}")
    if min(shape) == 0:
        refuse(loc, f"Expected samples with numbers. Received: shape {header.shape}")
    # Recordings of whole numbers are samples of that many bits: [-1, 1] is what floating-point audio means.
    scale = np.float32(1.0 / (np.iinfo(dtype).max + 1)) if kind == "audio" and dtype.kind == "i" else None
    samples = _filled(archive, names, shape)
    if scale is not None and samples.dtype in WHOLE:
        return {"x": samples, "scale": np.array([scale])}, shape, 1.0
    if scale is not None:
        samples *= scale
    if kind == "image" and dtype == np.uint8:
        return {"x": samples}, shape, 255.0
    samples = narrowest(samples)
    return {"x": samples}, shape, 255.0 if kind == "image" and samples.max() > 1.0 else 1.0


def _filled(archive: Archive, names: Sequence[str], shape: tuple[int, ...]) -> NDArray[Any]:
    """The arrays of these names one after another, [n, *shape], in a type that a model takes without a loss.

    Truth values and whole numbers of up to 16 bits, and float16, stay as they are; all else is float32.
    """
    headers = [archive.headers[name] for name in names]
    kinds = {np.dtype(np.int8) if h.dtype.kind == "b" else h.dtype.newbyteorder("=") for h in headers}
    is_narrow = len(kinds) == 1 and next(iter(kinds)) in (*WHOLE, np.float16)
    samples = np.empty((sum(h.shape[0] for h in headers), *shape), kinds.pop() if is_narrow else np.float32)
    first = 0
    for name in names:
        for piece in archive.pieces(name):
            part = samples[first : first + len(piece)]
            with np.errstate(over="ignore"):
                part[:] = _plain(piece).reshape(part.shape)
            if part.dtype.kind == "f" and not np.isfinite(part).all():
                refuse(("file", name), "Expected finite numbers. Received NaN or infinite ones")
            first += len(piece)
    return samples


def _plain(piece: NDArray[Any]) -> NDArray[Any]:
    """Numbers as they are, truth values as 0 and 1: their bytes may be any in a file."""
    return (piece.view(np.uint8) != 0).astype(np.int8) if piece.dtype.kind == "b" else piece


def _texts(archive: Archive, names: Sequence[str]) -> tuple[Arrays, tuple[int, ...], float]:
    loc = ("file", names[0])
    cells = _strings((piece for name in names for piece in archive.pieces(name)), loc)
    if longest(cells) > MAX_TEXT_CHARACTERS:
        refuse(loc, f"Expected texts of at most {MAX_TEXT_CHARACTERS:,} characters.")
    return pack_words(cells.words, np.asarray(cells.codes)), (), 1.0
