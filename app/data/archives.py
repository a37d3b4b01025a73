"""Reading `.npz` archives: the zip's directory and the arrays' headers are judged before any array is read.

A pickle never gets that far: an array of objects is refused by its header, and nothing is ever unpickled. Arrays are
read in pieces of a few megabytes: what becomes of them is mostly smaller, and only that is held.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from app.data.limits import MAX_MEMBERS, MAX_TEXT_CHARACTERS, MAX_WIDTH, DataLimits
from app.data.reading import parsing, refuse

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MAX_RATIO = 1_000
"""How many times smaller than its content a member may be: deflate reaches 1,032 at most, on zeros."""
SMALL_BYTES = 1_000_000
"""Below this a member may be packed as densely as it likes."""
KINDS = "buifUS"
"""Of NumPy's dtypes: truth values, integers, floats, and strings of fixed length."""
CHARACTER_BYTES = 4
"""What a character of a string takes, of bytes in UTF-8 at most."""
PIECE_BYTES = 2**22


@dataclass(frozen=True, slots=True)
class Header:
    """What an array's header says, and where in its member the numbers begin."""

    member: zipfile.ZipInfo
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_columns: bool

    @property
    def row_bytes(self) -> int:
        """Of one row, at least 1."""
        return max(1, math.prod(self.shape[1:]) * self.dtype.itemsize)


class Archive:
    """The arrays of an open `.npz` by name: `headers` say what they are."""

    def __init__(self, archive: zipfile.ZipFile, headers: dict[str, Header]) -> None:
        self._archive = archive
        self.headers = headers

    def pieces(self, name: str) -> Iterator[NDArray[Any]]:
        """An array of one dimension at least, a few rows at a time, [k, ...] each.

        Raises:
            InvalidDataset: it isn't there as its header says.
        """
        header, loc = self.headers[name], ("file", name)
        rows, at_once = header.shape[0], max(1, PIECE_BYTES // header.row_bytes)
        if header.by_columns:
            at_once = rows  # the first row ends where the array does
        with parsing("a .npz archive", loc):
            file = self._archive.open(header.member)
        with file:
            _exactly(file, header.start, loc)
            for first in range(0, rows, max(1, at_once)):
                shape = (min(at_once, rows - first), *header.shape[1:])
                content = _exactly(file, math.prod(shape) * header.dtype.itemsize, loc)
                flat = np.frombuffer(content, header.dtype)
                yield flat.reshape(shape, order="F" if header.by_columns else "C")
            with parsing("a .npz archive", loc):
                file.read(1)  # the checksum is looked at where the member ends


def _exactly(file: IO[bytes], count: int, loc: tuple[str, ...]) -> bytes:
    with parsing("a .npz archive", loc):
        content = file.read(count)
    if len(content) < count:
        refuse(loc, "Expected as many bytes as the archive says. Received fewer")
    return content


@contextmanager
def open_archive(path: Path, limits: DataLimits) -> Iterator[Archive]:
    """A `.npz` whose headers were read.

    Raises:
        InvalidDataset: it is none, over the limits, or holds objects.
    """
    with parsing("a .npz archive"):
        archive = zipfile.ZipFile(path)
    with archive:
        with parsing("a .npz archive"):
            headers = _headers(archive, limits)
        yield Archive(archive, headers)


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
    with archive.open(member) as file, parsing("an array as NumPy writes it", place):
        version = npy.read_magic(file)
        if version not in {(1, 0), (2, 0), (3, 0)}:
            raise ValueError(f"version {version}")
        # The readers evaluate a literal of limited length and nothing else.
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_columns, dtype = read(file)
        start = file.tell()
    if dtype.hasobject:
        refuse(place, "Expected numbers or strings. Received Python objects, which only a pickle can hold")
    if dtype.names or dtype.subdtype or dtype.kind not in KINDS or not dtype.itemsize:
        refuse(place, f"Expected numbers or strings. Received: {str(dtype)[:100]}")
    if dtype.itemsize > CHARACTER_BYTES * MAX_TEXT_CHARACTERS:
        refuse(place, f"Expected strings of at most {MAX_TEXT_CHARACTERS:,} characters. Received: {dtype}")
    # A truth value is a whole number to Python, and one of hexadecimal digits may be longer than Python writes.
    if any(type(n) is not int or not 0 <= n < 2**63 for n in shape):
        refuse(place, "Expected a shape of whole numbers of 64 bits from 0 on. Received another")
    if shape and shape[0] > limits.rows:
        refuse(place, f"Expected at most {limits.rows:,} rows, this service's limit. Received: {shape[0]:,}")
    if math.prod(shape[1:]) > MAX_WIDTH:
        refuse(place, f"Expected at most {MAX_WIDTH:,} numbers in a sample. Received: {math.prod(shape[1:]):,}")
    if math.prod(shape) * dtype.itemsize != member.file_size - start:
        refuse(place, f"Expected as many bytes as its shape {shape} needs. Received: {member.file_size - start:,}")
    return Header(member, start, tuple(shape), dtype, by_columns and len(shape) > 1)
