"""How a worker comes to the files of uploads: fetched, verified, waited for, and told in words where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.data import normal
from app.domain.study import DatasetSpec
from app.settings import Settings
from tests.support.data_files import csv_table
from worker.datasets import FOLDER, DatasetCache


@pytest.fixture
def uploaded(service: Any) -> Callable[..., DatasetSpec]:
    """`uploaded(name, rows)`: a data set of the service, as a study names it."""

    def upload(name: str = "mine", rows: int = 60) -> DatasetSpec:
        files, data = {"file": ("a.csv", csv_table(rows))}, {"name": name, "target": "churned"}
        response = service.client.post("/v1/datasets", files=files, data=data)
        assert response.status_code == 201, response.text
        return DatasetSpec(name=name, id=response.json()["id"])

    return upload


def cache_of(service: Any, folder: Path, **changes: Any) -> DatasetCache:
    """The cache of a worker on another machine: with a data directory of its own."""
    url = service.settings.resolved_dataset_url
    return DatasetCache(Settings(**{"data_dir": folder, "dataset_url": url} | changes), service.database)


def never() -> bool:
    return False


def stored(service: Any) -> Path:
    (path,) = Path(service.settings.resolved_dataset_url).rglob("*.npz")
    return path


def test_a_file_is_fetched_once_and_known_from_then_on(service: Any, uploaded: Any, tmp_path: Path) -> None:
    spec, cache = uploaded(), cache_of(service, tmp_path / "worker")
    assert cache.known(spec) is None
    assert cache.known(DatasetSpec(name="digits")) is not None
    found = cache.local(spec, never)
    assert found is not None
    assert normal.read(str(found.path)).dataset.rows == 60
    stored(service).unlink()
    assert cache.known(spec) == cache.local(spec, never) == found
    # Another worker of the machine finds the file there.
    assert cache_of(service, tmp_path / "worker").local(spec, never) == found


def test_a_store_that_is_away_is_waited_for(service: Any, uploaded: Any, tmp_path: Path) -> None:
    spec, path = uploaded(), stored(service)
    away = path.rename(path.with_name("away"))
    asked = []

    def came_back() -> bool:
        asked.append(path.exists())
        if len(asked) == 3:
            away.rename(path)
        return False

    found = cache_of(service, tmp_path / "worker").local(spec, came_back)
    assert asked == [False, False, False]
    assert found is not None
    assert found.problem is None


def test_a_worker_that_drains_does_not_wait(service: Any, uploaded: Any, tmp_path: Path) -> None:
    spec = uploaded()
    stored(service).unlink()
    answers = iter([False, True])
    assert cache_of(service, tmp_path / "worker").local(spec, lambda: next(answers)) is None


def test_a_damaged_file_and_a_deleted_data_set_are_told_in_words(service: Any, uploaded: Any, tmp_path: Path) -> None:
    spec = uploaded()
    content = stored(service).read_bytes()
    stored(service).write_bytes(content[:-1] + b"x")
    found = cache_of(service, tmp_path / "worker").local(spec, never)
    assert found is not None
    assert "is damaged" in str(found.problem)
    assert not list((tmp_path / "worker").rglob("*.npz"))
    assert service.client.delete("/v1/datasets/mine").status_code == 204
    found = cache_of(service, tmp_path / "worker").local(spec, never)
    assert found is not None
    assert "was deleted" in str(found.problem)


def test_a_damaged_copy_is_fetched_anew(service: Any, uploaded: Any, tmp_path: Path) -> None:
    spec = uploaded()
    found = cache_of(service, tmp_path / "worker").local(spec, never)
    assert found is not None
    path = Path(str(found.path))
    path.write_bytes(b"half")
    assert cache_of(service, tmp_path / "worker").local(spec, never) == found
    assert normal.read(path).dataset.rows == 60


def test_what_was_not_used_for_longest_makes_room(service: Any, uploaded: Any, tmp_path: Path) -> None:
    specs = [uploaded(f"d{rows}", rows) for rows in (60, 70, 80)]
    cache = cache_of(service, tmp_path / "worker", dataset_cache_bytes=1)
    for spec in specs:
        found = cache.local(spec, never)
        assert found is not None
        kept = list((tmp_path / "worker" / FOLDER).glob("*.npz"))
        assert kept == [Path(str(found.path))]
    assert cache.known(specs[0]) is None


def test_a_registered_file_is_compared_and_read_by_the_worker(serve: Any, database: Any, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    path = root / "a.csv"
    path.write_bytes(csv_table())
    with serve(database, dataset_roots=f"file://{root}") as service:
        body = {"uri": f"file://{path}", "name": "mine", "target": "churned"}
        spec = DatasetSpec(name="mine", id=service.client.post("/v1/datasets", json=body).json()["id"])
        found = cache_of(service, tmp_path / "w1", dataset_roots=f"file://{root}").local(spec, never)
        assert found is not None
        assert normal.read(str(found.path)).dataset.rows == 60
        found = cache_of(service, tmp_path / "w2").local(spec, never)
        assert found is not None
        assert "FETTLE_DATASET_ROOTS" in str(found.problem)
        path.write_bytes(csv_table(61))
        for folder in ("w1", "w3"):
            found = cache_of(service, tmp_path / folder, dataset_roots=f"file://{root}").local(spec, never)
            assert found is not None
            assert "changed since" in str(found.problem)
