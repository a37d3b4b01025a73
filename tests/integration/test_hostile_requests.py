"""Names of files, paths in URLs and archives within archives: what is sent to reach beyond what was offered."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from app.store.engine import Database
from tests.integration.conftest import RunningService
from tests.support.data_files import csv_table, form, npy, npz, zip_of

PATHS = [
    "..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%2e%2e", "..%5c..%5cetc", "%00", "a%00b", "%ff%fe",
    "%252e%252e%252fetc", "%2fetc%2fpasswd", "file:%2f%2f%2fetc%2fpasswd", "'%20OR%201=1--", "%7b0.__class__%7d",
    "%0d%0aSet-Cookie:%20a=b", "*", "a" * 4_000, "%E2%80%AE", "CON", "ds_%25",
]  # fmt: skip
PLACES = [
    "/v1/studies/@", "/v1/studies/@/trials", "/v1/studies/@/events", "/v1/studies/@/best/recipe.py",
    "/v1/studies/@/report", "/v1/studies/@/export", "/v1/studies/{id}/trials/@", "/v1/studies/{id}/plots/@",
    "/v1/studies/{id}/trials/0/artifacts/@", "/v1/datasets/@", "/v1/webhooks/@", "/@",
]  # fmt: skip


@pytest.fixture
def running(sqlite_database: Database, serve: Any) -> Iterator[RunningService]:
    """A service on SQLite; what is refused here never gets as far as the database."""
    with serve(sqlite_database) as service:
        yield service


def test_a_path_in_a_url_leads_nowhere(running: RunningService) -> None:
    study = running.create()["id"]
    assert running.client.post(f"/v1/studies/{study}/trials", json={}).status_code == 201
    for place in PLACES:
        for path in PATHS:
            url = place.replace("@", path).replace("{id}", study)
            response = running.client.get(url)
            assert response.status_code in {400, 404, 422}, (url[:100], response.status_code)
            assert response.headers["content-type"] == "application/problem+json"
            assert "root:" not in response.text
            assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    "filename",
    ["../../../../tmp/fettle-escaped.csv", "/tmp/fettle-escaped.csv", "..\\..\\a.csv", "a.csv\0.png", ".csv",
     "a" * 3_000 + ".csv", "C:\\\\a.csv", "~/a.csv", "$(id).csv", "a;rm -rf.csv", "%2e%2e%2fa.csv",
     "{0.__class__}.csv", "…csv.csv"],
)  # fmt: skip
def test_the_name_of_an_uploaded_file_is_no_path(running: RunningService, tmp_path: Path, filename: str) -> None:
    """It tells the format at most: what is kept is named by its hash."""
    body, headers = form(csv_table(), filename, [("name", "table"), ("target", "churned")])
    response = running.client.post("/v1/datasets", content=body, headers=headers)
    assert response.status_code in {201, 400, 422}, response.text
    assert not Path("/tmp/fettle-escaped.csv").exists()
    kept = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    for path in kept:
        assert path.parts[0] == "datasets" or path.name.startswith(("fettle.db", "key")), path
    if response.status_code == 201:
        assert filename not in response.text


Y = bytes(16)


def _polyglot() -> bytes:
    """A table for one reader, an archive for another."""
    return b"x,y\n1,a\n2,b\n1,a\n2,b\n" + npz(x=np.zeros((4, 2)), y=np.arange(4) % 2)


def _with_directory_entry() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.mkdir("x.npy")
        archive.writestr("y.npy", npy("(2,)", "<f8", bytes(16)))
    return buffer.getvalue()


def _with_symbolic_link() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("x.npy")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("y.npy", npy("(2,)", "<f8", bytes(16)))
    return buffer.getvalue()


def _lying_sizes() -> bytes:
    """A member whose directory says fewer bytes than it unpacks to."""
    archive = bytearray(zip_of([("x.npy", npy("(1000,)", "<f8", bytes(8000))), ("y.npy", bytes(10))]))
    entry = archive.index(b"PK\x01\x02")
    archive[entry + 24 : entry + 28] = (200).to_bytes(4, "little")
    return bytes(archive)


def _nested() -> bytes:
    inner = npz(x=np.zeros((4, 2)), y=np.arange(4))
    return zip_of([("x.npy", inner), ("y.npy", npy("(4,)", "<f8", bytes(32)))])


ARCHIVES: dict[str, bytes] = {
    "an archive in an archive": _nested(),
    "an archive in an array's bytes": npz(x=np.frombuffer(_nested(), np.uint8), y=np.arange(2)),
    "a folder for a member": _with_directory_entry(),
    "a symbolic link for a member": _with_symbolic_link(),
    "sizes that lie": _lying_sizes(),
    "a table before an archive": _polyglot(),
    **{
        f"the member {name!r}": zip_of([(name, npy("(2, 2)", "<f8", bytes(32))), ("y.npy", npy("(2,)", "<f8", Y))])
        for name in ("/etc/x.npy", "..\\x.npy", "C:x.npy", "x\x01.npy", "a/../x.npy", "./x.npy", "x.npy/", "..npy")
    },
    "objects among structures": npz(x=np.zeros(2, [("a", "O")]), y=np.arange(2)),
    "structures within structures": npz(x=np.zeros(2, [("a", [("b", "f8", (2,))])]), y=np.arange(2)),
    "subarrays": zip_of([("x.npy", npy("(2,)", "('<f8', (1000000,))", b""))]),
    "raw bytes": npz(x=np.zeros(2, "V8"), y=np.arange(2)),
    "a global of a pickle": zip_of([("x.npy", npy("(1,)", "|O", b"cos\nsystem\n(S'id'\ntR."))]),
    "a reduce of a pickle": zip_of([("x.npy", npy("(1,)", "|O", pickle.dumps(zipfile.ZipFile)))]),
    "a pickle instead of an archive": pickle.dumps({"x": [1], "y": [1]}),
    "an HDF5 instead of an archive": b"\x89HDF\r\n\x1a\n" + bytes(512),
}  # fmt: skip


@pytest.mark.parametrize("what", ARCHIVES)
def test_an_archive_that_is_more_or_less_than_arrays_is_refused(running: RunningService, what: str) -> None:
    body, headers = form(ARCHIVES[what], "a.npz", [("name", "new"), ("x", "x"), ("y", "y")])
    response = running.client.post("/v1/datasets", content=body, headers=headers)
    if what == "a table before an archive":
        # A zip archive is read from its end: what stands before it is nobody's.
        assert response.status_code in {201, 422}
        assert response.status_code == 422 or response.json()["rows"] == 4
        return
    assert response.status_code == 422, response.text
    assert response.json()["code"] == "INVALID_DATASET"
    assert "root:" not in response.text


def test_formulas_and_code_in_cells_stay_text(running: RunningService) -> None:
    hostile = ["=cmd|' /C calc'!A0", "@SUM(1)", "{{7*7}}", "${jndi:ldap://x}", '"""; import os', "__import__('os')"]
    lines = ["x,kind,y", *(f'{i},"{hostile[i % 6].replace(chr(34), chr(34) * 2)}",{"ab"[i % 2]}' for i in range(60))]
    body, headers = form("\n".join(lines).encode(), "a.csv", [("name", "cells"), ("target", "y")])
    response = running.client.post("/v1/datasets", content=body, headers=headers)
    assert response.status_code == 201, response.text
    assert set(response.json()["columns"][1]["values"]) == set(hostile)


def test_metadata_of_parquet_is_not_unpickled(running: RunningService) -> None:
    evil = pickle.dumps(zipfile.ZipFile)
    schema = pa.schema([("x", pa.float64()), ("y", pa.string())], metadata={b"pandas": evil, b"ARROW:schema": b"!"})
    table = pa.table({"x": [float(i) for i in range(20)], "y": ["a", "b"] * 10}, schema=schema)
    buffer = io.BytesIO()
    pa.parquet.write_table(table, buffer)
    body, headers = form(buffer.getvalue(), "a.parquet", [("name", "meta"), ("target", "y")])
    response = running.client.post("/v1/datasets", content=body, headers=headers)
    assert response.status_code in {201, 422}, response.text


@pytest.mark.parametrize(("fields", "status"), [(9_000, 422), (60_000, 400)])
def test_thousands_of_unknown_fields_are_answered_shortly(running: RunningService, fields: int, status: int) -> None:
    response = running.client.post("/v1/studies", json={f"f{i}": 1 for i in range(fields)})
    assert response.status_code == status
    assert len(response.content) < 100_000
