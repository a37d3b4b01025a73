"""Data sets over HTTP: uploaded in each format, shown back, named by studies, registered by URI, and deleted."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from app.data import normal
from app.data.files import DatasetFiles
from app.store.engine import Database
from tests.support.data_files import csv_table, images, npz, text_table


def upload(service: Any, file: bytes, filename: str, status: int = 201, key: str | None = None, **fields: Any) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    data = {"name": "mine"} | fields
    response = service.client.post("/v1/datasets", files={"file": (filename, file)}, data=data, headers=headers)
    assert response.status_code == status, response.text
    return response.json()


def mlp_study(name: str, dataset: str, **changes: Any) -> dict[str, Any]:
    objectives = [{"metric": "val_accuracy", "direction": "maximize"}]
    definition = {"name": name, "model": {"family": "mlp"}, "dataset": {"name": dataset}, "objectives": objectives}
    return definition | {"budget": {"trials": 1}} | changes


def stored_files(service: Any) -> list[Path]:
    return [path for path in Path(service.settings.resolved_dataset_url).rglob("*") if path.is_file()]


def test_a_csv_is_understood_and_shown_back(service: Any) -> None:
    found = upload(service, csv_table(), "customers.csv", target="churned", description="Who left.")
    columns = {column["name"]: (column["type"], column["role"]) for column in found["columns"]}
    assert columns == {
        "customer_id": ("id", "dropped"),
        "age": ("number", "feature"),
        "city": ("category", "feature"),
        "member": ("boolean", "feature"),
        "since": ("time", "dropped"),
        "churned": ("category", "target"),
    }
    assert (found["task"], found["input_kind"], found["rows"], found["shape"]) == ("classification", "vector", 60, [3])
    assert (found["classes"], found["class_names"]) == (2, ["no", "yes"])
    assert next(c for c in found["columns"] if c["name"] == "city")["values"] == ["Lima", "Oslo", "Rome"]
    assert next(c for c in found["columns"] if c["name"] == "age")["missing"] == 6
    assert [w.partition(":")[0] for w in found["warnings"]] == ["customer_id", "age", "since"]
    for reference in (found["id"], "mine"):
        assert service.client.get(f"/v1/datasets/{reference}").json() == found
    assert service.client.get("/v1/datasets").json()["items"][-1] == found


def test_an_owner_says_what_columns_are(service: Any) -> None:
    said = {"columns": json.dumps({"age": "category", "member": "category"}), "drop": ["city", "since"]}
    found = upload(service, csv_table(), "c.csv", target="churned", **said)
    types = {c["name"]: c["type"] for c in found["columns"] if c["role"] == "feature"}
    assert types == {"age": "category", "member": "category"}
    (path,) = stored_files(service)
    kept = normal.read(path)
    ages = next(c for c in kept.dataset.columns if c.name == "age")
    assert ages.values[0] == "18"
    assert ages.values == tuple(sorted(ages.values, key=int))
    assert (kept.arrays["codes"][:, 0] == -1).sum() == 6


def test_parquet_says_the_same_as_csv(service: Any) -> None:
    table = {"a": [1.5, 2.5, None, 4.0] * 10, "b": ["x", "y", "x", None] * 10, "y": [0.25, 1.5, 2.5, 3.5] * 10}
    buffer = io.BytesIO()
    pa.parquet.write_table(pa.table(table), buffer)
    lines = [f"{a if a is not None else ''},{b or ''},{y}" for a, b, y in zip(*table.values(), strict=True)]
    text = "\n".join(["a,b,y", *lines]).encode()
    found = [upload(service, file, f"t.{kind}", name=kind, target="y") for kind, file in
             (("parquet", buffer.getvalue()), ("csv", text))]  # fmt: skip
    assert found[0]["columns"] == found[1]["columns"]
    assert found[0]["task"] == found[1]["task"] == "regression"
    assert len(stored_files(service)) == 1  # what was read is the same, and kept once


def test_arrays_are_images_recordings_vectors_or_texts(service: Any) -> None:
    y = np.arange(20) % 2
    waves = np.random.default_rng(0).integers(-3000, 3000, (20, 400)).astype(np.int16)
    cases = [
        ("pixels", npz(**images()), {}, "image", [8, 8, 1], 40),
        ("split", npz(x_train=np.ones((8, 4)), y_train=y[:8], x_test=np.ones((4, 4)), y_test=y[:4]), {},
         "vector", [4], 12),
        ("waves", npz(sound=waves, word=y), {"x": "sound", "y": "word", "input_kind": "audio", "sample_rate": 8000},
         "audio", [400], 20),
        ("words", npz(x=np.array(["good day", "bad day"] * 10), y=y), {}, "text", [], 20),
    ]  # fmt: skip
    for name, file, fields, kind, shape, rows in cases:
        found = upload(service, file, f"{name}.npz", name=name, **fields)
        assert (found["input_kind"], found["shape"], found["rows"]) == (kind, shape, rows)
    assert found["sample_rate"] == 0
    row = service.client.get("/v1/datasets/waves").json()
    assert row["sample_rate"] == 8000


def test_a_text_column_alone_makes_texts_and_beside_others_is_left_out(service: Any) -> None:
    found = upload(service, text_table(), "t.csv", target="label")
    assert (found["input_kind"], found["task"], found["class_names"]) == ("text", "classification", ["nasty", "nice"])
    (path,) = stored_files(service)
    texts = normal.unpack_texts(normal.read(path).arrays)
    assert texts[1] == "bad awful poor terrible, number 1"
    lines = text_table().decode().splitlines()
    wider = "\n".join([f"{line},{'n' if i == 0 else i % 7}" for i, line in enumerate(lines)])
    found = upload(service, wider.encode(), "w.csv", name="wider", target="label")
    assert found["input_kind"] == "vector"
    assert [w for w in found["warnings"] if w.startswith("text: left out")]


def test_the_same_upload_again_is_the_same_data_set(service: Any) -> None:
    first = upload(service, csv_table(), "a.csv", target="churned")
    assert upload(service, csv_table(), "b.csv", status=200, target="churned") == first
    taken = upload(service, csv_table(), "a.csv", status=409, target="churned", drop="city")
    assert taken["code"] == "NAME_TAKEN"
    assert upload(service, csv_table(), "a.csv", status=409, name="digits", target="churned")["code"] == "NAME_TAKEN"
    other = upload(service, csv_table(), "a.csv", name="other", target="churned")
    assert other["id"] != first["id"]
    assert len(stored_files(service)) == 1


def test_a_repeated_key_gives_the_same_answer_and_another_file_is_refused(service: Any) -> None:
    first = upload(service, csv_table(), "a.csv", key="k1", target="churned")
    assert upload(service, csv_table(), "a.csv", key="k1", target="churned") == first
    refused = upload(service, csv_table(80), "a.csv", status=422, key="k1", target="churned")
    assert refused["code"] == "IDEMPOTENCY_MISMATCH"


def test_lists_are_paged_over_both_kinds(service: Any) -> None:
    for i in range(3):
        upload(service, csv_table(), "a.csv", name=f"d{i}", target="churned")
    names, cursor = [], None
    while True:
        params = {"limit": 4} | ({"cursor": cursor} if cursor else {})
        page = service.client.get("/v1/datasets", params=params).json()
        assert len(page["items"]) <= 4
        names += [item["name"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert names == [item["name"] for item in service.client.get("/v1/datasets?limit=1000").json()["items"]]
    assert names[-3:] == ["d0", "d1", "d2"]


def test_a_study_keeps_the_data_set_that_it_named(service: Any) -> None:
    found = upload(service, csv_table(), "a.csv", target="churned")
    for name, reference in (("by-name", "mine"), ("by-id", found["id"])):
        study = service.client.post("/v1/studies", json=mlp_study(name, reference)).json()
        assert study["definition"]["dataset"]["id"] == found["id"]
        assert study["definition"]["dataset"]["name"] == "mine"
    # What was answered may be posted again.
    again = study["definition"] | {"name": "again"}
    assert service.client.post("/v1/studies", json=again).status_code == 201
    response = service.client.delete("/v1/datasets/mine")
    assert (response.status_code, response.json()["code"]) == (409, "DATASET_IN_USE")
    assert "'by-name'" in response.json()["detail"]
    for name in ("by-name", "by-id", "again"):
        study_id = next(s["id"] for s in service.client.get("/v1/studies").json()["items"] if s["name"] == name)
        service.client.post(f"/v1/studies/{study_id}:cancel")
        assert service.client.delete(f"/v1/studies/{study_id}").status_code == 204
    assert service.client.delete("/v1/datasets/mine").status_code == 204
    assert service.client.get("/v1/datasets/mine").status_code == 404
    assert stored_files(service) == []


def test_a_file_goes_with_the_last_data_set_that_has_it(service: Any) -> None:
    for name in ("one", "two"):
        upload(service, csv_table(), "a.csv", name=name, target="churned")
    assert service.client.delete("/v1/datasets/one").status_code == 204
    assert len(stored_files(service)) == 1
    assert service.client.delete("/v1/datasets/two").status_code == 204
    assert stored_files(service) == []


def test_studies_and_deletions_at_once_leave_no_orphan(service: Any) -> None:
    """A study that was created has its data set; a data set that was deleted has no study."""
    for i in range(6):
        found = upload(service, csv_table(), "a.csv", name=f"d{i}", target="churned")
        answers: dict[str, int] = {}
        start = threading.Barrier(2)

        def create(i: int = i, answers: Any = answers, start: Any = start) -> None:
            start.wait()
            with httpx.Client(base_url=service.url) as client:
                answers["create"] = client.post("/v1/studies", json=mlp_study(f"s{i}", f"d{i}")).status_code

        def delete(i: int = i, answers: Any = answers, start: Any = start) -> None:
            start.wait()
            with httpx.Client(base_url=service.url) as client:
                answers["delete"] = client.delete(f"/v1/datasets/d{i}").status_code

        threads = [threading.Thread(target=work) for work in (create, delete)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert (answers["create"], answers["delete"]) in {(201, 409), (422, 204)}
        exists = service.client.get(f"/v1/datasets/{found['id']}").status_code == 200
        assert exists == (answers["create"] == 201)


def test_uploads_and_deletions_of_one_content_at_once_leave_each_data_set_its_file(service: Any) -> None:
    form = {"target": "churned"}
    for i in range(8):
        upload(service, csv_table(), "a.csv", name=f"old{i}", **form)
        start = threading.Barrier(2)

        def delete(i: int = i, start: Any = start) -> None:
            start.wait()
            assert httpx.delete(f"{service.url}/v1/datasets/old{i}", timeout=30).status_code == 204

        thread = threading.Thread(target=delete)
        thread.start()
        start.wait()
        upload(service, csv_table(), "a.csv", name=f"new{i}", **form)
        thread.join(60)
        (path,) = stored_files(service)
        assert normal.hash_of(path) == path.stem
        assert service.client.delete(f"/v1/datasets/new{i}").status_code == 204
        assert stored_files(service) == []


def test_an_answer_repeated_after_its_data_set_is_gone_leaves_no_file(service: Any) -> None:
    first = upload(service, csv_table(), "a.csv", key="k", target="churned")
    assert service.client.delete(f"/v1/datasets/{first['id']}").status_code == 204
    assert upload(service, csv_table(), "a.csv", key="k", target="churned") == first
    assert stored_files(service) == []


def test_a_file_below_a_root_is_registered_where_it_lies(serve: Any, database: Database, tmp_path: Path) -> None:
    root = tmp_path / "shared"
    root.mkdir()
    (root / "customers.csv").write_bytes(csv_table())
    (tmp_path / "secret.csv").write_bytes(csv_table())
    (root / "link.csv").symlink_to(tmp_path / "secret.csv")
    with serve(database, dataset_roots=f"file://{root}, memory://lake/in") as service:
        body = {"uri": f"file://{root}/customers.csv", "name": "mine", "target": "churned"}
        response = service.client.post("/v1/datasets", json=body)
        assert response.status_code == 201, response.text
        assert response.json()["origin"] == "reference"
        assert response.json()["uri"] == body["uri"]
        assert stored_files(service) == []
        for uri in (
            f"file://{root}/link.csv", f"file://{root}/../secret.csv", f"file://{tmp_path}/secret.csv",
            f"file://{root}/%2e%2e/secret.csv", f"file://{root}x/customers.csv", "file:///etc/passwd",
            f"http://127.0.0.1/{root}/customers.csv", "s3://lake/in/a.csv", "memory://lake/other/a.csv",
            f"simplecache::file://{root}/customers.csv", f"{root}/customers.csv", f"file://{root}/nothing.csv",
            "memory://lake/in/../other/a.csv", f"file://{root}", "file://user@host/x.csv",
        ):  # fmt: skip
            response = service.client.post("/v1/datasets", json=body | {"uri": uri, "name": "other"})
            assert response.status_code == 422, uri
            assert response.json()["errors"][0]["loc"] == ["uri"], uri
            assert "secret" not in response.text.replace(uri, "")


def test_data_sets_lie_wherever_fsspec_reaches(tmp_path: Path) -> None:
    import fsspec

    source = tmp_path / "source"
    source.write_bytes(b"content")
    digest = normal.hash_of(source)
    files = DatasetFiles("memory://store/sets")
    files.ensure(digest, source)
    assert fsspec.filesystem("memory").cat(f"/store/sets/{digest[:2]}/{digest}.npz") == b"content"
    files.fetch(digest, tmp_path / "cache" / "copy")
    assert (tmp_path / "cache" / "copy").read_bytes() == b"content"
    files.remove(digest, lambda: True)  # wanted again while it was aside
    assert files.has(digest)
    files.remove(digest, lambda: False)
    assert not files.has(digest)
    with pytest.raises(FileNotFoundError):
        files.fetch(digest, tmp_path / "cache" / "copy")
    assert fsspec.filesystem("memory").find("/store") == []


def test_a_limit_on_files_is_kept(serve: Any, database: Database) -> None:
    with serve(database, max_upload_bytes=4096, max_unpacked_bytes=10_000, max_dataset_rows=100) as service:
        assert upload(service, b"a,b\n" + b"1,2\n" * 2000, "a.csv", status=413, target="b")["code"] == "BODY_TOO_LARGE"
        refused = upload(service, b"a,b\n" + b"1,2\n" * 200, "a.csv", status=422, target="b")
        assert "at most 100 rows" in refused["detail"]
        refused = upload(service, npz(x=np.zeros((50, 40)), y=np.arange(50)), "a.npz", status=413)
        import zipfile

        from tests.support.data_files import npy, zip_of

        packed = zip_of([("x.npy", npy("(50, 40)", "<f8", bytes(16_000))), ("y.npy", npy("(50,)", "<i8", bytes(400)))])
        assert len(packed) < 4096
        assert zipfile.is_zipfile(io.BytesIO(packed))
        assert "bytes unpacked" in upload(service, packed, "a.npz", status=422)["detail"]
