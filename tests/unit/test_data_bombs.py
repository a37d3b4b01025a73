"""Files that would unpack to more than anybody has: refused by what they say of themselves, in little memory."""

from __future__ import annotations

import gzip
import io
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.data.assembly import read_dataset
from app.data.limits import DataLimits
from app.data.reading import FileFormat, Reading
from app.errors import InvalidDataset
from tests.support.data_files import zip_of

MOST_MB = 250
MOST_CPU_S = 5.0
LIMITS = DataLimits(unpacked_bytes=50_000_000, rows=1_000_000)


def array(shape: tuple[int, ...], dtype: str = "<f8", content: bytes = b"") -> bytes:
    """An `.npy` whose header says so."""
    head = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (63 - (10 + len(head)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content


TARGET = ("y.npy", array((10,), content=bytes(80)))
NOISE = np.random.default_rng(0).integers(0, 4, 4_000_000).astype(np.uint8).tobytes()
LARGE = array((500_000,), content=NOISE)


def with_size(archive: bytes, size: int) -> bytes:
    """The archive, whose first member is said to unpack to `size` bytes."""
    changed = bytearray(archive)
    struct.pack_into("<L", changed, 22, size)
    struct.pack_into("<L", changed, changed.find(b"PK\1\2") + 24, size)
    return bytes(changed)


def overlapping(count: int) -> bytes:
    """An archive whose members, each named otherwise, are all the same bytes of it."""
    archive = zip_of([("x00.npy", LARGE)])
    start, end = archive.find(b"PK\1\2"), archive.find(b"PK\5\6")
    entries = b"".join(archive[start:end].replace(b"x00.npy", b"x%02d.npy" % i) for i in range(count))
    tail = bytearray(archive[end:])
    struct.pack_into("<HHLL", tail, 8, count, count, len(entries), start)
    return archive[:start] + entries + bytes(tail)


def quoting(count: int) -> bytes:
    """An archive whose members quote the header of the next one and share its data (D. Fifield, WOOT 2019)."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed, plain = packer.compress(LARGE) + packer.flush(), LARGE
    body, entries = b"", []
    for i in reversed(range(count)):
        if body:
            head = body[:37]
            packed = struct.pack("<BHH", 0, 37, 37 ^ 0xFFFF) + head + packed
            plain = head + plain
        name = b"x%02d.npy" % i
        facts = (zlib.crc32(plain), len(packed), len(plain))
        body = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, *facts, len(name), 0) + name + packed
        entries.insert(0, (name, facts))
    directory, at = b"", 0
    for name, facts in entries:
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0, *facts, len(name), 0, 0, 0, 0, 0, at)
        directory += name
        at += 37 + 5
    return body + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)


def zip64(size: int) -> bytes:
    """An archive of one member that is said, in its 64-bit fields, to unpack to `size` bytes."""
    name, content = b"x.npy", array((10,), content=bytes(80))
    packed = zlib.compress(content, 9)[2:-4]
    extra = struct.pack("<HHQQ", 1, 16, size, len(packed))
    most = 0xFFFFFFFF
    facts = (zlib.crc32(content), most, most, len(name), len(extra))
    body = struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 8, 0, 0, *facts) + name + extra + packed
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 8, 0, 0, *facts, 0, 0, 0, 0, 0) + name + extra
    return body + entry + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(body), 0)


def parquet(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", **options)
    return sink.getvalue()


def long_words(dictionary: bool) -> bytes:
    words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(900_000, np.int32)), pa.array(["a" * 1_000_000]))
    table = pa.table({"x": words, "y": pa.array(np.arange(900_000) % 2)})
    if not dictionary:
        table = pa.table({"x": pa.array(["a" * 1_000_000] * 60), "y": pa.array([0, 1] * 30)})
    return parquet(table, use_dictionary=dictionary)


def many_rows() -> bytes:
    zeros = pa.array(np.zeros(20_000_000, np.int8))
    return parquet(pa.table({"x": zeros, "y": zeros}), row_group_size=20_000_000)


def short_footer() -> bytes:
    changed = bytearray(parquet(pa.table({"x": [1, 2], "y": [0, 1]})))
    struct.pack_into("<L", changed, len(changed) - 8, 2**31)
    return bytes(changed)


def wide(columns: int, rows: int) -> bytes:
    head = b",".join([*(b"c%d" % i for i in range(columns - 1)), b"y"])
    return head + b"\n" + b"".join(b"%d" % (i % 2) + b"," * (columns - 1) + b"%d\n" % (i % 2) for i in range(rows))


BOMBS: dict[str, tuple[FileFormat, Callable[[], bytes]]] = {
    "a giant shape": ("npz", lambda: zip_of([("x.npy", array((10**6, 10**6))), TARGET])),
    "a shape beyond 64 bits": ("npz", lambda: zip_of([("x.npy", array((2, 2**62, 2**62))), TARGET])),
    "a shape of less than nothing": ("npz", lambda: zip_of([("x.npy", array((-1, -8))), TARGET])),
    "strings of a hundred million characters": (
        "npz",
        lambda: zip_of([("x.npy", array((10,), "<U100000000")), TARGET]),
    ),
    "zeros": ("npz", lambda: zip_of([("x.npy", array((5_000_000,), content=bytes(40_000_000))), TARGET])),
    "more than it says": ("npz", lambda: with_size(zip_of([("x.npy", LARGE), TARGET]), 208)),
    "less than it says": ("npz", lambda: with_size(zip_of([("x.npy", LARGE), TARGET]), 49_000_000)),
    "members on top of each other": ("npz", lambda: overlapping(12)),
    "many members on top of each other": ("npz", lambda: overlapping(60)),
    "members that quote the next": ("npz", lambda: quoting(12)),
    "many members": ("npz", lambda: zip_of([(f"a{i}.npy", b"") for i in range(5_000)])),
    "an archive in an archive": ("npz", lambda: zip_of([("x.npy", zip_of([("x.npy", LARGE)])), TARGET])),
    "64-bit sizes": ("npz", lambda: zip64(2**40)),
    "a header of brackets": (
        "npz",
        lambda: zip_of([("x.npy", b"\x93NUMPY\x02\x00" + struct.pack("<L", 200_000) + b"(" * 200_000), TARGET]),
    ),
    "a header of four gigabytes": (
        "npz",
        lambda: zip_of([("x.npy", b"\x93NUMPY\x02\x00" + struct.pack("<L", 2**32 - 1) + b"{" * 100), TARGET]),
    ),
    "a packed table": ("csv", lambda: gzip.compress(b"x,y\n" + b"1,0\n" * 5_000_000)),
    "one long line": ("csv", lambda: b"a" * 60_000_000),
    "a million columns": ("csv", lambda: b",".join(b"c%d" % i for i in range(1_000_000)) + b"\n1\n"),
    "one long cell": ("csv", lambda: b"x,y\n1,0\n2," + b"a" * 60_000_000 + b"\n"),
    "a quote that never ends": ("csv", lambda: b'x,y\n1,0\n2,"' + b"a\n" * 30_000_000),
    "commas": ("csv", lambda: b"x,y\n" + b"," * 60_000_000),
    "many cells": ("csv", lambda: wide(9_999, 1_000)),
    "many rows": ("csv", lambda: b"x,y\n" + b"1,0\n" * 2_000_000),
    "many rows of nothing": ("parquet", many_rows),
    "a long word a million times": ("parquet", lambda: long_words(True)),
    "long words": ("parquet", lambda: long_words(False)),
    "many columns": ("parquet", lambda: parquet(pa.table({f"c{i}": pa.array([1]) for i in range(20_000)}))),
    "lists": ("parquet", lambda: parquet(pa.table({"x": pa.array([[0] * 1_000] * 1_000), "y": pa.array([0] * 1_000)}))),
    "a footer of two gigabytes": ("parquet", short_footer),
}


class Peak:
    """The most memory that this process has while the block runs, beyond what it had, in megabytes."""

    def __enter__(self) -> Peak:
        self._process = psutil.Process()
        self._before = self._most = self._process.memory_info().rss
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self._most = max(self._most, self._process.memory_info().rss)

    @property
    def megabytes(self) -> float:
        return (self._most - self._before) / 1e6


@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_is_refused_before_it_unpacks(tmp_path: Path, what: str) -> None:
    form, make = BOMBS[what]
    path = tmp_path / "bomb"
    path.write_bytes(make())
    target = None if form == "npz" else "y"
    began = time.process_time()
    with Peak() as peak, pytest.raises(InvalidDataset) as refused:
        read_dataset(path, Reading(format=form, target=target), LIMITS, name="n", description="", origin="upload")
    assert peak.megabytes < MOST_MB
    assert time.process_time() - began < MOST_CPU_S
    assert len(refused.value.detail) < 1_000


def test_a_wide_table_within_the_limits_is_read_in_memory_that_its_cells_explain(tmp_path: Path) -> None:
    columns, rows = 5_000, 400
    path = tmp_path / "wide.csv"
    path.write_bytes(wide(columns, rows))
    with Peak() as peak:
        normal = read_dataset(
            path, Reading(format="csv", target="y"), DataLimits(), name="n", description="", origin="upload"
        )
    assert normal.dataset.rows == rows
    assert peak.megabytes < 60 + 60 * columns * rows / 1e6


def test_an_archive_that_says_how_it_is_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.npz"
    x = np.random.default_rng(0).normal(size=(1_000, 50))
    np.savez_compressed(path, x=x, y=np.arange(1_000) % 2)
    normal = read_dataset(path, Reading(format="npz"), LIMITS, name="n", description="", origin="upload")
    assert normal.dataset.rows == 1_000
    with zipfile.ZipFile(path) as archive:
        assert all(member.compress_type == zipfile.ZIP_DEFLATED for member in archive.infolist())
