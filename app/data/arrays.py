"""A data set in the arrays of a `.npz`: images, recordings, texts, or vectors without names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.data.archives import read_archive
from app.data.cells import Cells, number_cells
from app.data.limits import MAX_TEXT_CHARACTERS, DataLimits
from app.data.normal import Normal, pack_texts
from app.data.reading import Reading, refuse
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
    arrays = read_archive(path, None if reading.x is None or reading.y is None else [reading.x, reading.y], limits)
    x_name, y_name = _pair(arrays, reading)
    x, y, warnings = arrays[x_name], arrays[y_name], []
    tests = ("x_test", "y_test")
    if (x_name, y_name) == ("x_train", "y_train") and all(name in arrays for name in tests):
        x, y = _together(x, arrays["x_test"], "x_test"), _together(y, arrays["y_test"], "y_test")
        warnings.append("x_test and y_test are added to the training arrays: a study splits all rows by its own seed.")
    elif unused := [name for name in arrays if name not in (x_name, y_name)]:
        warnings.append(f"Arrays that are not used: {', '.join(unused)}.")
    if x.ndim == 0 or len(x) == 0:
        refuse(("file", x_name), "Expected samples. Received none")
    target = _target(y, len(x), reading, ("file", y_name))
    kind = _kind(x, reading, x_name)
    if kind == "text":
        return _texts(x, target, warnings, x_name)
    samples, maximum = _numbers(x, kind, x_name)
    dataset = Dataset(
        name="",
        description="",
        task=target.task,
        input_kind=kind,
        shape=samples.shape[1:],
        rows=len(samples),
        classes=len(target.labels),
        class_names=target.labels,
        rarest=target.rarest,
        maximum=maximum,
        sample_rate=reading.sample_rate or 0,
        warnings=tuple(warnings),
    )
    return Normal(dataset, {"x": samples, "y": target.y})


def _refuse_table_fields(reading: Reading) -> None:
    for field in ("target", "delimiter"):
        if getattr(reading, field) is not None:
            refuse((field,), "Expected none: a .npz has arrays; name them by x and y.")
    for field in ("columns", "drop"):
        if getattr(reading, field):
            refuse((field,), "Expected none: the arrays of a .npz have no columns with names.")


def _pair(arrays: dict[str, NDArray[Any]], reading: Reading) -> tuple[str, str]:
    for field, name in (("x", reading.x), ("y", reading.y)):
        if name is not None and name not in arrays:
            refuse((field,), f"Expected one of the arrays {', '.join(arrays)}. Received: {name!r}")
    for x, y in ((reading.x, reading.y), *PAIRS):
        x_name, y_name = reading.x or x, reading.y or y
        if x_name in arrays and y_name in arrays:
            return str(x_name), str(y_name)
    return refuse(("file",), f"Expected arrays x and y, or their names in x and y. Received: {', '.join(arrays)}")


def _together(first: NDArray[Any], second: NDArray[Any], name: str) -> NDArray[Any]:
    if first.shape[1:] != second.shape[1:] or first.dtype.kind != second.dtype.kind:
        refuse(("file", name), f"Expected samples like those of training. Received: {second.dtype} {second.shape[1:]}")
    return np.concatenate([first, second])


def _target(y: NDArray[Any], rows: int, reading: Reading, loc: tuple[str, ...]) -> Target:
    y = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1 or len(y) != rows:
        refuse(loc, f"Expected one target for each of {rows:,} samples. Received an array of shape {y.shape}")
    if y.dtype.kind in "SU":
        words, codes = np.unique(_decoded(y, loc), return_inverse=True)
        cells = Cells(loc[-1], "string", rows, codes=codes.astype(np.int32), words=tuple(words.tolist()))
    else:
        cells = number_cells(loc[-1], "boolean" if y.dtype.kind == "b" else "number", y)
        if np.isinf(np.asarray(cells.numbers)).any():
            refuse(loc, "Expected finite targets. Received an infinite one")
    return target_of(cells, reading.task, loc)


def _decoded(strings: NDArray[Any], loc: tuple[str, ...]) -> NDArray[Any]:
    if strings.dtype.kind == "U":
        return strings
    try:
        return np.char.decode(strings, "utf-8")
    except UnicodeDecodeError:
        return refuse(loc, "Expected bytes in UTF-8. Received others")


def _kind(x: NDArray[Any], reading: Reading, name: str) -> InputKind:
    """What the samples are: as said, else by their shape."""
    strings = x.dtype.kind in "SU"
    likely: InputKind | None = "text" if strings else {2: "vector", 3: "image", 4: "image"}.get(x.ndim)  # type: ignore[assignment]
    kind = likely if reading.input_kind == "auto" else reading.input_kind
    dimensions = {"text": (1,), "vector": (2,), "audio": (2,), "image": (3, 4)}
    if kind is None or x.ndim not in dimensions[kind] or strings != (kind == "text"):
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


def _numbers(x: NDArray[Any], kind: InputKind, name: str) -> tuple[NDArray[Any], float]:
    """Samples as they are kept, and the brightest value of a pixel."""
    if kind == "image":
        x = x[..., np.newaxis] if x.ndim == 3 else x
        if x.shape[-1] not in CHANNELS:
            refuse(("file", name), f"Expected images of 1, 3 or 4 channels, the last axis. Received: {x.shape[-1]}")
        if min(x.shape[1:3]) < SMALLEST_SIDE:
            refuse(("file", name), f"Expected images of 2×2 pixels at least. Received: {x.shape[1]}×{x.shape[2]}")
    if min(x.shape[1:]) == 0:
        refuse(("file", name), f"Expected samples with numbers. Received: shape {x.shape}")
    if kind == "image" and x.dtype == np.uint8:
        return np.ascontiguousarray(x), 255.0
    # Recordings of whole numbers are samples of that many bits: [-1, 1] is what floating-point audio means.
    scale = np.float32(1.0 / (np.iinfo(x.dtype).max + 1)) if kind == "audio" and x.dtype.kind == "i" else np.float32(1)
    with np.errstate(over="ignore"):
        samples = np.ascontiguousarray(x, np.float32) * scale
    if not np.isfinite(samples).all():
        refuse(("file", name), "Expected finite numbers. Received NaN or infinite ones")
    brightest = 255.0 if kind == "image" and samples.max() > 1.0 else 1.0
    return samples, brightest


def _texts(x: NDArray[Any], target: Target, warnings: list[str], name: str) -> Normal:
    texts = _decoded(x, ("file", name)).tolist()
    if any(len(text) > MAX_TEXT_CHARACTERS for text in texts):
        refuse(("file", name), f"Expected texts of at most {MAX_TEXT_CHARACTERS:,} characters.")
    dataset = Dataset(
        name="",
        description="",
        task=target.task,
        input_kind="text",
        shape=(),
        rows=len(texts),
        classes=len(target.labels),
        class_names=target.labels,
        rarest=target.rarest,
        warnings=tuple(warnings),
    )
    return Normal(dataset, {**pack_texts(texts), "y": target.y})
