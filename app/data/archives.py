"""Reading `.npz` archives: the zip's directory and the arrays' headers are judged before any array is read.

A pickle never gets that far: an array of objects is refused by its header, and nothing is ever unpickled.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from app.data.limits import MAX_MEMBERS, MAX_WIDTH, DataLimits
from app.data.reading import refuse

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MAX_RATIO = 1_000
"""How many times smaller than its content a member may be: deflate reaches 1,032 at most, on zeros."""
SMALL_BYTES = 1_000_000
"""Below this a member may be packed as densely as it likes."""
KINDS = "buifUS"
"""Of NumPy's dtypes: truth values, integers, floats, and strings of fixed length."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an array's header says."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read_archive(path: Path, wanted: list[str] | None, limits: DataLimits) -> dict[str, NDArray[Any]]:
    """The arrays of a `.npz` by name: those `wanted`, or all.

    Raises:
        InvalidDataset: it is none, over the limits, or holds objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            headers = _headers(archive, limits)
            for name in wanted or ():
                if name not in headers:
                    refuse(("file", name), f"Expected one of the arrays {', '.join(headers)}. Received: {name!r}")
            return {name: _array(archive, name) for name in wanted or headers}
    except (
        zipfile.BadZipFile,
        EOFError,
        OSError,
        NotImplementedError,
        RuntimeError,
        zipfile.LargeZipFile,
        zlib.error,
    ) as error:
        refuse(("file",), f"Expected a .npz archive. Received: {str(error)[:200]}")


def _headers(archive: zipfile.ZipFile, limits: DataLimits) -> dict[str, Header]:
    members = archive.infolist()
    if not members:
        refuse(("file",), "Expected arrays. Received an archive without any")
    if len(members) > MAX_MEMBERS:
        refuse(("file",), f"Expected at most {MAX_MEMBERS} arrays. Received: {len(members):,}")
    unpacked = sum(member.file_size for member in members)
    if unpacked > limits.unpacked_bytes:
        refuse(
            ("file",),
            f"Expected at most {limits.unpacked_bytes:,} bytes unpacked, this service's limit. Received: {unpacked:,}",
        )
    headers: dict[str, Header] = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        place = ("file", name[:255])
        if "/" in name or "\\" in name or ".." in name or not name.isprintable() or not name:
            refuse(("file",), f"Expected names of arrays. Received: {member.filename[:100]!r}")
        if name in headers:
            refuse(place, "Expected names of arrays that differ. Received this one twice")
        if member.compress_type not in METHODS or member.flag_bits & 0x1:
            refuse(place, "Expected a member that is stored or deflated. Received one that is packed otherwise")
        if member.file_size > max(SMALL_BYTES, MAX_RATIO * max(1, member.compress_size)):
            refuse(place, "Expected data. Received a member that unpacks to more than a thousand times its size")
        headers[name] = _header(archive, member, place, limits)
    return headers


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: tuple[str, ...], limits: DataLimits) -> Header:
    with archive.open(member) as file:
        try:
            version = npy.read_magic(file)
            if version not in {(1, 0), (2, 0), (3, 0)}:
                raise ValueError(f"version {version}")
            # The readers evaluate a literal of limited length and nothing else.
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read(file)
        except (ValueError, EOFError, UnicodeError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
            refuse(place, f"Expected an array as NumPy writes it. Received: {str(error)[:200] or type(error).__name__}")
        start = file.tell()
    if dtype.hasobject:
        refuse(place, "Expected numbers or strings. Received Python objects, which only a pickle can hold")
    if dtype.names or dtype.subdtype or dtype.kind not in KINDS:
        refuse(place, f"Expected numbers or strings. Received: {dtype}")
    count = math.prod(shape)
    if shape and shape[0] > limits.rows:
        refuse(place, f"Expected at most {limits.rows:,} rows, this service's limit. Received: {shape[0]:,}")
    if len(shape) > 1 and math.prod(shape[1:]) > MAX_WIDTH:
        refuse(place, f"Expected at most {MAX_WIDTH:,} numbers in a sample. Received: {math.prod(shape[1:]):,}")
    if min(shape, default=0) < 0 or count * dtype.itemsize != member.file_size - start:
        refuse(place, f"Expected as many bytes as its shape {shape} needs. Received: {member.file_size - start:,}")
    return Header(tuple(shape), dtype)


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    filename = next(m.filename for m in archive.infolist() if m.filename.removesuffix(".npy") == name)
    with archive.open(filename) as file:
        try:
            array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
        except (ValueError, EOFError) as error:
            refuse(("file", name), f"Expected an array as NumPy writes it. Received: {str(error)[:200]}")
    return array
