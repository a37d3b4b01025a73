"""Orphaned files: found and deleted once they are old, never one that somebody has or may still publish."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.domain.datasets import BUILT_IN
from app.domain.trial import ArtifactPointer, CheckpointPointer, Reservation
from app.settings import Settings
from app.store import checkpoints, lifecycle
from app.store.datasets import NewDataset, add_dataset
from app.store.engine import Database
from app.upkeep.orphans import collect, orphans
from tests.store.conftest import Bench

AGE_S = 2 * 3600.0
OLD_S = 3 * 3600.0


def write(root: Path, path: str, age_s: float = OLD_S) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * 10)
    at = time.time() - age_s
    os.utime(file, (at, at))
    return file


def folder(bench: Bench, r: Reservation) -> str:
    return f"{bench.public_id}/{r.number:06d}/{r.attempt or 1}-{r.token[:12]}"


def left(root: Path) -> set[str]:
    return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}


def test_only_files_that_nobody_can_publish_any_more_are_orphans(bench: Bench, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    root = tmp_path / "artifacts"
    done, live, lost, given_back = bench.running(4)
    model = f"{folder(bench, done)}/model.keras"
    bench.finish(done, artifacts=(ArtifactPointer("model.keras", model, "application/vnd.keras", 10, {}),))
    state = f"{folder(bench, live)}-epoch-3/state.npz"
    with bench.database.write() as session:
        pointer = CheckpointPointer(f"{folder(bench, given_back)}-epoch-2/state.npz", 2, 10)
        new = checkpoints.New(given_back.trial_id, given_back.token, 1, pointer)
        checkpoints.put(session.connection(), [new], at=1.0)
    from app.store import leases

    for r in (lost, given_back):
        with bench.database.write() as session:
            leases.release(session, bench.study_id, [(r.trial_id, r.token)], "RELEASED")
    kept = {
        model,
        f"{folder(bench, done)}/events.out",
        f"{folder(bench, live)}/model.keras",
        state,
        pointer.path,
        "another/tool/keeps/this",
        "st_readme.txt",
    }
    gone = {
        f"{folder(bench, done)}-epoch-1/state.npz",
        f"{folder(bench, lost)}/model.keras",
        f"{folder(bench, given_back)}-epoch-1/state.npz",
        "st_00000000000000000000/000000/1-aaaaaaaaaaaa/model.keras",
    }
    for path in kept | gone:
        write(root, path)
    young = f"{bench.public_id}/000004/1-bbbbbbbbbbbb/model.keras"
    write(root, young, age_s=60)
    found = list(orphans(bench.database, settings, AGE_S))
    assert {orphan.path for orphan in found} == {path.rpartition("/")[0] for path in gone}
    assert {orphan.size_bytes for orphan in found} == {10}
    assert left(root) == kept | gone | {young}
    assert len(collect(bench.database, settings, AGE_S)) == len(gone)
    assert left(root) == kept | {young}
    assert collect(bench.database, settings, 1.0) == [], "however it is asked for, what is young stays"
    assert not (root / "st_00000000000000000000").exists()


def test_a_file_that_is_published_while_the_location_is_listed_stays(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker commits its pointer after the listing, and its lease ends with it."""
    settings = Settings(data_dir=tmp_path)
    (r,) = bench.running()
    path = f"{folder(bench, r)}/model.keras"
    write(tmp_path / "artifacts", path)
    from app.upkeep import orphans as module

    asked = module.store.claims

    def published_first(session: object, study: str) -> object:
        bench.finish(r, artifacts=(ArtifactPointer("model.keras", path, "application/vnd.keras", 10, {}),))
        return asked(session, study)  # type: ignore[arg-type]

    monkeypatch.setattr(module.store, "claims", published_first)
    assert list(orphans(bench.database, settings, AGE_S)) == []


def test_a_deleted_study_leaves_orphans_where_its_files_could_not_be_deleted(bench: Bench, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    (r,) = bench.running()
    write(tmp_path / "artifacts", f"{folder(bench, r)}/model.keras")
    bench.act(lifecycle.cancel)
    bench.act(lifecycle.delete_study)
    (orphan,) = collect(bench.database, settings, AGE_S)
    assert orphan.why == "its study does not exist"
    assert left(tmp_path / "artifacts") == set()


def test_data_sets_that_nobody_has_and_halves_of_uploads_go(database: Database, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    root = tmp_path / "datasets"
    mine, orphan, moved, half = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
    with database.write() as session:
        for digest in (mine, moved):
            about = replace(BUILT_IN["wine"], name=f"mine-{digest[0]}")
            new = NewDataset(about, digest, digest, 10, "{}")
            add_dataset(session, new, project="default", created_by=None)
    write(root, f"aa/{mine}.npz")
    write(root, f"bb/{orphan}.npz")
    write(root, f"dd/{half}.npz.0123456789ab.part")
    write(root, f"bb/{orphan}.npz.0123456789ab.removed")
    # A deletion moved it aside and died; a data set of the same content has come since.
    write(root, f"cc/{moved}.npz.0123456789ab.removed")
    write(root, "notes.txt")
    collect(database, settings, AGE_S)
    assert left(root) == {f"aa/{mine}.npz", f"cc/{moved}.npz", "notes.txt"}


def test_a_location_that_does_not_exist_yet_has_no_orphans(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    assert collect(make_bench().database, Settings(data_dir=tmp_path / "new"), AGE_S) == []
