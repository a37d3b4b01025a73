"""Temporary folders of processes that were killed: the next start deletes them, and never those of the living."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.scratch import Scratch, sweep
from app.store.engine import Database
from tests.support.processes import ROOT, Fleet, WorkerProcess, wait_for
from tests.support.services import service_on


def folders(place: Path) -> set[Path]:
    return {path for path in place.iterdir() if path.is_dir()}


def holder(place: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A process that has a scratch folder with a file in it, and does nothing more."""
    before = folders(place)
    code = (
        "import pathlib, time\nfrom app.scratch import Scratch\n"
        f"scratch = Scratch('upload', within=pathlib.Path({str(place)!r}))\n"
        "(scratch.path / 'deep').mkdir()\n(scratch.path / 'deep' / 'file').write_bytes(b'x')\ntime.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    (made,) = wait_for(
        lambda: [path for path in folders(place) - before if (path / "deep" / "file").exists()], 60.0, "a folder"
    )
    return process, made


def test_a_sweep_takes_what_the_dead_left_and_nothing_else(tmp_path: Path) -> None:
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    for folder in (place, elsewhere):
        folder.mkdir()
    (elsewhere / "kept").touch()
    dead, left = holder(place)
    living, held = holder(place)
    try:
        dead.kill()
        dead.wait()
        own = Scratch("worker", within=place)
        foreign = place / "fettle-worker-of-an-earlier-release"
        foreign.mkdir()
        (place / "fettle-upload-link.locked").symlink_to(elsewhere)
        assert sweep(place) == 1
        assert not left.exists()
        assert folders(place) == {held, own.path, foreign, place / "fettle-upload-link.locked"}
        assert (elsewhere / "kept").exists()
        own.close()
        own.close()
        assert not own.path.exists()
        assert sweep(place) == 0
    finally:
        living.kill()
        living.wait()
    assert sweep(place) == 1
    assert sweep(tmp_path / "nowhere") == 0


def test_sweeps_never_take_a_folder_that_is_just_being_made(tmp_path: Path) -> None:
    ended = threading.Event()

    def sweeping() -> None:
        while not ended.is_set():
            sweep(tmp_path)

    sweepers = [threading.Thread(target=sweeping) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    try:
        for _ in range(100):
            with Scratch("worker", within=tmp_path) as scratch:
                (scratch.path / "file").touch()
                assert (scratch.path / "file").exists()
    finally:
        ended.set()
        for sweeper in sweepers:
            sweeper.join()
    sweep(tmp_path)
    assert folders(tmp_path) == set()


def test_what_a_killed_worker_had_in_work_goes_when_another_starts(fleet: Fleet, tmp_path: Path) -> None:
    place = tmp_path / "temporary"
    place.mkdir()

    def start() -> tuple[WorkerProcess, Path]:
        before = folders(place)
        worker = fleet.start(environment={"TMPDIR": str(place)})
        wait_for(lambda: "worker_started" in worker.log(), 60.0, "a worker")
        (made,) = {path for path in folders(place) - before if path.name.startswith("fettle-worker-")}
        return worker, made

    (killed, left), (_, held) = start(), start()
    (left / "half-written.keras").write_bytes(b"x")
    killed.process.kill()
    killed.wait()
    _, third = start()
    assert not left.exists()
    assert held.exists()
    assert third.exists()
    assert "scratch_swept" in fleet.workers[-1].log()


def test_what_a_killed_api_had_in_work_goes_when_it_starts_again(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    rows = b"a,b,y\n" + b"".join(b"%d.5,%d,%d\n" % (i, i % 7, i % 2) for i in range(400_000))
    with service_on(database, tmp_path) as service:
        sender = threading.Thread(target=_upload, args=(service.client, rows))
        sender.start()
        wait_for(lambda: [p for p in folders(place) if p.name.startswith("fettle-upload-")], 60.0, "an upload in work")
        service.kill()
        sender.join()
        assert folders(place) != set()
        service.start()
        wait_for(lambda: not folders(place), 60.0, "an empty place")
        wait_for(lambda: "scratch_swept" in service.log(), 60.0, "a line of the log")


def _upload(client_of: Callable[[], httpx.Client], content: bytes) -> None:
    with client_of() as client, pytest.raises(httpx.TransportError):
        client.post("/v1/datasets", files={"file": ("a.csv", content), "name": (None, "big"), "target": (None, "y")})
