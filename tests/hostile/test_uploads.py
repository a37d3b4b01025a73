"""Uploads that are made to cost much, or to break a reader: refused in words, or read in little memory."""

from __future__ import annotations

import io
import threading
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.compute import Bounds, run_alone
from app.data import normal
from app.data.limits import DataLimits
from app.data.reading import FileFormat, Reading
from app.data.roots import Unreadable, locate
from app.domain.datasets import Dataset
from app.domain.study import DatasetSpec
from app.errors import InvalidDataset, TooExpensive
from app.store.engine import Database
from app.store.projects import change_project
from tests.hostile.uploads import FLIPS, keep_and_measure, read_flipped
from tests.integration.conftest import serving
from tests.support.data_files import csv_table, npy, npz, text_table, zip_of
from worker.training.data.uploads import uploaded

LIMITS = DataLimits(unpacked_bytes=200_000_000)
Y = np.arange(120) % 2


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def long_text(rows: int) -> bytes:
    """One text of 100,000 characters in every row: a few kilobytes, of ten gigabytes once written out."""
    codes = pa.array(np.zeros(rows, np.int32))
    words = pa.DictionaryArray.from_arrays(codes, pa.array(["a b c d " * 12_500]))
    return parquet(pa.table({"x": words, "y": np.arange(rows) % 2}), compression="zstd")


def kept(
    tmp_path: Path, content: bytes, form: FileFormat, limits: DataLimits = LIMITS, **said: Any
) -> tuple[normal.Normal, int, int]:
    """What is kept of a file, the bytes of it, and the most memory that its reading took, in a process of its own."""
    source, target = tmp_path / "source", tmp_path / "kept.npz"
    source.write_bytes(content)
    bounds = Bounds(180, limits.memory_bytes)
    found, peak = run_alone(keep_and_measure, source, Reading(format=form, **said), limits, target, bounds=bounds)
    return normal.read(target), found.size_bytes, peak


def test_a_text_that_is_repeated_is_kept_once(tmp_path: Path) -> None:
    found, size, peak = kept(tmp_path, long_text(100_000), "parquet", target="y")
    assert found.dataset.rows == 100_000
    assert size < 1_000_000
    assert peak < 2 * LIMITS.unpacked_bytes
    texts = normal.unpack_texts(found.arrays)
    assert len(texts) == 100_000
    assert texts[0] == texts[-1] == "a b c d " * 12_500


def test_strings_of_fixed_length_are_kept_by_what_differs(tmp_path: Path) -> None:
    words = np.array([b"%05d" % (i % 7) + b"x" * 500 for i in range(120_000)])
    found, size, peak = kept(tmp_path, npz(x=words, y=np.arange(120_000) % 2), "npz")
    assert size < 1_000_000
    assert peak < 2 * LIMITS.unpacked_bytes
    assert normal.unpack_texts(found.arrays)[8] == "00001" + "x" * 500


@pytest.mark.parametrize(
    ("x", "kind", "said"),
    [
        (np.arange(-60, 60, dtype=np.int8).reshape(-1, 1) * np.ones((1, 5), np.int8), np.int8, {}),
        (np.arange(600, dtype=np.int64).reshape(120, 5), np.int16, {}),
        (np.arange(600, dtype=np.float64).reshape(120, 5) / 2, np.float32, {}),
        (np.asfortranarray(np.arange(600, dtype=">i2").reshape(120, 5)), np.int16, {}),
        (np.arange(600).reshape(120, 5) % 2 == 0, np.int8, {}),
        (np.arange(600, dtype=np.int16).reshape(120, 5), np.int16, {"input_kind": "audio", "sample_rate": 8000}),
    ],
)
def test_numbers_are_kept_as_narrow_as_they_are_and_widened_to_what_they_were(
    tmp_path: Path, x: Any, kind: Any, said: Any
) -> None:
    found, _, _ = kept(tmp_path, npz(x=x, y=Y), "npz", **said)
    assert found.arrays["x"].dtype == kind
    wide = normal.samples(found)
    assert wide.dtype == np.float32
    scale = np.float32(1 / 2**15) if said else np.float32(1)
    np.testing.assert_array_equal(wide, np.ascontiguousarray(x, np.float32) * scale)
    assert normal.targets(found).dtype == np.int32


def test_files_of_the_first_form_are_read_as_before(tmp_path: Path) -> None:
    old = Dataset("", "", "classification", "text", (), 3, 2, ("a", "b"))
    arrays = {**normal.pack_texts(["p", "", "q"]), "y": np.array([0, 1, 0], np.int32)}
    normal.write(normal.Normal(old, arrays), tmp_path / "old.npz")
    texts, targets = uploaded(DatasetSpec(name="t", id="ds_t"), str(tmp_path / "old.npz")).load()
    assert texts.tolist() == ["p", "", "q"]
    np.testing.assert_array_equal(targets, arrays["y"])


def with_name(content: bytes, old: bytes, new: bytes) -> bytes:
    """A file whose bytes `old` are `new`, of the same length, wherever they are."""
    assert len(old) == len(new)
    assert old in content
    return content.replace(old, new)


def table() -> bytes:
    return parquet(
        pa.table({"nnnn": np.arange(120) % 7, "word": [f"w{i % 5}" for i in range(120)], "y": Y}), compression="none"
    )


def archive(shape: str = "(120, 2)", dtype: str = "<f4", content: bytes = bytes(960)) -> bytes:
    return zip_of([("x.npy", npy(shape, dtype, content)), ("y.npy", npy("(120,)", "<i8", Y.tobytes()))])


BROKEN: dict[str, tuple[FileFormat, bytes]] = {
    "a column's name that is no UTF-8": ("parquet", with_name(table(), b"nnnn", b"\xff\xfe\xff\xfe")),
    "a column's name that is half a character": ("parquet", with_name(table(), b"nnnn", b"a\xed\xa0\x80")),
    "a column's name with a zero byte": ("parquet", with_name(table(), b"nnnn", b"n\0nn")),
    "a column without a name": ("parquet", parquet(pa.table({"": [1, 2] * 60, "y": Y}))),
    "columns in columns": ("parquet", parquet(pa.table({"x": [{"a": {"b": 1}}] * 120, "y": Y}))),
    "a word that is no UTF-8": ("parquet", with_name(table(), b"w0", b"\xff\xfe")),
    "a shape with a truth value": ("npz", archive("(True, 120)", content=bytes(480))),
    "a shape of truth values": ("npz", archive("(True, True)", content=bytes(4))),
    "a shape of four thousand digits": ("npz", archive(f"(0x{'f' * 4_000}, 2)")),
    "a shape of less than nothing": ("npz", archive("(-120, -2)")),
    "structures": ("npz", archive(dtype="[('a', '<f4')]")),
    "times": ("npz", archive("(120,)", "<M8[s]")),
    "complex numbers": ("npz", archive("(120,)", "<c8")),
    "void": ("npz", archive("(120,)", "|V8")),
    "objects": ("npz", archive("(120,)", "|O")),
    "strings of a million bytes": ("npz", archive("(120,)", "|S1000000", bytes(100))),
    "strings of no bytes": ("npz", archive("(120,)", "<U0", b"")),
    "half a surrogate pair": ("npz", archive("(120,)", "<U2", np.full(240, 0xD800, "<u4").tobytes())),
    "beyond Unicode": ("npz", archive("(120,)", "<U2", np.full(240, 0x7FFFFFFF, "<u4").tobytes())),
    "bytes that are no UTF-8": ("npz", archive("(120,)", "|S8", b"\xff" * 960)),
    "a member's name that is no UTF-8": ("npz", with_name(zip_of([("\u00e9", b"")]), b"\xc3\xa9", b"\xff\xfe")),
    "a member above": ("npz", zip_of([("../x.npy", npy("(120,)", "<f4", bytes(480)))])),
    "a member that is no array": ("npz", zip_of([("x", b"text"), ("y.npy", npy("(120,)", "<i8", Y.tobytes()))])),
    "a line of a hundred million characters": ("csv", b"x,y\n" + b"a" * 100_000_000),
    "a quote that is never closed": ("csv", b'x,y\n1,0\n"2,1\n' + b"3,0\n" * 500_000),
    "bytes that are no text": ("csv", b"x,y\n" + b"\xff,1\n" * 100),
    "a header that is no UTF-8": ("csv", b"\xff\xfe,y\n1,2\n"),
}


SEEDS: dict[str, tuple[FileFormat, bytes]] = {
    "parquet": ("parquet", table()),
    "parquet of texts": (
        "parquet", parquet(pa.table({"x": pa.array(["some words of it"] * 120).dictionary_encode(), "y": Y}))
    ),
    "npz": ("npz", npz(x=np.arange(240).reshape(120, 2), y=Y)),
    "npz of texts": ("npz", npz(x=np.array(["good day", "bad day"] * 60), y=Y)),
    "csv": ("csv", csv_table()),
    "csv of texts": ("csv", text_table()),
}  # fmt: skip


def post(service: Any, content: bytes, form: str, **fields: Any) -> Any:
    target = {} if form == "npz" else {"target": "y"}
    data = {"name": "mine", "format": form} | target | fields
    return service.client.post("/v1/datasets", files={"file": ("f", content)}, data=data, timeout=120)


def test_a_broken_file_is_refused_in_words(sqlite_database: Database, tmp_path: Path) -> None:
    answers = {}
    with serving(sqlite_database, tmp_path) as service:
        for what, (form, content) in BROKEN.items():
            answer = post(service, content, form)
            answers[what] = (answer.status_code, "Expected" in answer.text, len(answer.text) < 5_000)
    assert answers == dict.fromkeys(BROKEN, (422, True, True))


@pytest.mark.parametrize("what", SEEDS)
def test_bytes_that_are_flipped_never_break_a_reader(tmp_path: Path, what: str) -> None:
    form, content = SEEDS[what]
    target = {"csv": "churned", "csv of texts": "label"}.get(what, None if form == "npz" else "y")
    begun, deaths = 0, 0
    while begun < FLIPS:
        try:
            run_alone(read_flipped, content, form, target, tmp_path, begun, bounds=Bounds(300, LIMITS.memory_bytes))
        except TooExpensive:
            deaths += 1  # Arrow ends its process over some: that is what the process is for
        begun = int((tmp_path / "begun").read_text())
    assert any(tmp_path.glob("refused-*"))
    assert deaths <= FLIPS // 10


def test_a_quota_counts_what_is_kept(sqlite_database: Database, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (2_000, 100)).astype(np.int64)
    packed = npz(x=np.zeros((20_000, 10), np.float32) + np.float32(0.5), y=np.arange(20_000) % 2)
    with serving(sqlite_database, tmp_path) as service:
        answer = post(service, npz(x=noise, y=np.arange(2_000) % 2), "npz")
        assert answer.status_code == 201, answer.text
        (file,) = [p for p in Path(service.settings.resolved_dataset_url).rglob("*") if p.is_file()]
        assert answer.json()["size_bytes"] == file.stat().st_size < 2_000 * 100 * 2
        quota = {"max_stored_bytes": file.stat().st_size + 100_000}
        sqlite_database.run(lambda session: change_project(session, "default", None, quota))
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(packed)) as plain, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as tight:
            for name in plain.namelist():
                tight.writestr(name, plain.read(name))
        assert len(buffer.getvalue()) < 100_000
        refused = post(service, buffer.getvalue(), "npz", name="packed")
        assert (refused.status_code, refused.json()["code"]) == (409, "QUOTA_EXCEEDED")
        assert [p for p in Path(service.settings.resolved_dataset_url).rglob("*") if p.is_file()] == [file]


@pytest.mark.thorough
def test_the_worst_files_are_read_within_twice_the_stated_limit_or_refused(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    files: dict[str, tuple[FileFormat, bytes, Any]] = {
        "int8": ("npz", npz(x=draws.integers(0, 9, (190_000, 1_000), np.int8), y=np.arange(190_000) % 2), {}),
        "cells": ("csv", b"a,b,c,d,y\n" + b"1,2,3,4,0\n1,2,3,4,1\n" * 1_000_000, {"target": "y"}),
        "words": (
            "csv", b"a,y\n" + b"".join(b"k%x,%d\n" % (i, i % 2) for i in range(3_000_000)),
            {"target": "y", "columns": {"a": "text"}},
        ),
    }  # fmt: skip
    peaks = {}
    for what, (form, content, said) in files.items():
        with suppress(TooExpensive):
            peaks[what] = kept(tmp_path, content, form, **said)[2]
    assert {"int8", "cells"} <= peaks.keys()
    assert max(peaks.values()) < LIMITS.memory_bytes + 150_000_000


def test_with_the_default_limit_a_reader_has_less_than_twice_of_it() -> None:
    limits = DataLimits()
    assert limits.memory_bytes + 150_000_000 < 2 * limits.unpacked_bytes


@pytest.mark.parametrize("name", ["a" * 300 + ".csv", "a" * 300 + "/b.csv", "\u00e9" * 200 + ".csv"])
def test_a_name_that_is_too_long_for_the_system_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidDataset):
        locate(f"file://{tmp_path}/{name}", [f"file://{tmp_path}"])


def test_a_path_that_is_swapped_while_it_is_resolved_is_refused_or_read(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.write_bytes(b"secret")
    path, other = root / "a.csv", root / "b.csv"
    path.write_bytes(b"data")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            path.unlink(missing_ok=True)
            path.mkdir()
            path.rmdir()
            path.symlink_to(path)  # a loop
            path.unlink()
            path.symlink_to(outside)
            other.write_bytes(b"data")
            other.replace(path)

    thread = threading.Thread(target=swap)
    thread.start()
    read = 0
    try:
        for _ in range(2_000):
            try:
                locate(f"file://{path}", [f"file://{root}"]).copy(tmp_path / "copy", 100)
            except (InvalidDataset, Unreadable):
                continue
            read += 1
            assert (tmp_path / "copy").read_bytes() == b"data"
    finally:
        done.set()
        thread.join()
    assert read
