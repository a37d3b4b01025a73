"""Disks that are full or can't be written: results are kept, what is missing is told, and the worker lives."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.store.engine import Database
from app.store.tables import TrialLog
from tests.crash.disks import FILLER, Disk, small_disk
from tests.crash.networks import artifacts, files_below, network_study
from tests.crash.test_checkpoints import checkpoint
from tests.store.conftest import Bench, bench_maker
from tests.support.processes import ROOT, Fleet, WorkerProcess, files_within, fleet_on, over, wait_for

MakeStudy = Callable[..., Bench]
Fault = Callable[[Path], contextlib.AbstractContextManager[Callable[[], None]]]


@pytest.fixture
def sqlite_on_a_small_disk(tmp_path: Path, migrated_sqlite_file: Path) -> Iterator[tuple[Database, Disk]]:
    with small_disk(tmp_path / "disk", "8m") as disk:
        shutil.copy(migrated_sqlite_file, disk.folder / "fettle.db")
        database = Database(f"sqlite:///{disk.folder / 'fettle.db'}")
        yield database, disk
        database.dispose()


def stalled(bench: Bench, for_s: float = 12.0) -> list[dict[str, Any]]:
    """The study's events, once there have been no new ones for longer than a single write is tried again."""
    seen, since = bench.events(), time.monotonic()

    def is_still() -> bool:
        nonlocal seen, since
        if (events := bench.events()) != seen:
            seen, since = events, time.monotonic()
        return time.monotonic() - since >= for_s

    wait_for(is_still, what="a standstill")
    assert bench.study().state == "RUNNING"
    return seen


def test_a_full_disk_under_the_database_holds_a_worker_up_and_costs_no_trial(
    sqlite_on_a_small_disk: tuple[Database, Disk], tmp_path: Path
) -> None:
    database, disk = sqlite_on_a_small_disk
    bench = bench_maker(database)(
        hyperparameters={"x0": {"type": "float", "low": -1.0, "high": 1.0}, "delay_seconds": 0.05},
        training={"epochs": 10, "select_epoch": "last"},
        sampler={"name": "random"},
        budget={"trials": 12},
        execution={"parallel_trials": 2},
    )
    with fleet_on(database, tmp_path) as fleet:
        worker = fleet.start()
        wait_for(lambda: bench.study().complete >= 2, what="the first trials")
        disk.fill()
        known = stalled(bench)
        assert worker.process.poll() is None
        disk.free()
        assert over(bench) == "COMPLETED"
        assert worker.process.poll() is None
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    assert [(t.state, t.attempt) for t in bench.trials()] == [("COMPLETE", 1)] * 12
    for trial in bench.trials():
        assert bench.metrics(trial.id) == [(1, epoch) for epoch in range(10)]
    assert bench.events()[: len(known)] == known
    assert bench.kinds().count("trial.finished") == 12
    bench.check()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Wants the device that is always full")
def test_a_worker_whose_log_cannot_be_written_works_on(fleet: Fleet, make_study: MakeStudy, tmp_path: Path) -> None:
    folder = tmp_path / "silenced"
    folder.mkdir()
    silence = "import os\nfor said in (1, 2):\n    os.dup2(os.open('/dev/full', os.O_WRONLY), said)\n"
    (folder / "sitecustomize.py").write_text(silence)
    bench = make_study(trials=2, epochs=10, delay_seconds=0.1, execution={"parallel_trials": 1})
    worker = fleet.start(environment={"PYTHONPATH": f"{folder}:{ROOT}"})
    wait_for(lambda: bench.trials() and bench.metrics(bench.trial(0).id), what="the first metrics")
    os.kill(worker.trainer_pid(), signal.SIGKILL)  # something to complain of
    assert over(bench) == "COMPLETED"
    assert [(t.state, t.attempt) for t in bench.trials()] == [("COMPLETE", 2), ("COMPLETE", 1)]
    worker.signal(signal.SIGTERM)
    worker.wait()
    bench.check()


@pytest.fixture
def location(tmp_path: Path) -> Path:
    """Where a test's artifacts go."""
    return tmp_path / "location"


@contextlib.contextmanager
def a_file_in_its_place(location: Path) -> Iterator[Callable[[], None]]:
    """A location below which nobody can write, root neither; the call makes it a folder."""
    location.write_text("no folder")

    def heal() -> None:
        location.unlink()
        location.mkdir()

    yield heal


@contextlib.contextmanager
def a_full_disk(location: Path) -> Iterator[Callable[[], None]]:
    """A location without a byte free; the call frees it."""
    with small_disk(location, "512k") as disk:
        disk.fill()
        yield disk.free


FAULTS = pytest.mark.parametrize("fault", [a_file_in_its_place, a_full_disk])


def left_in_scratch(worker: WorkerProcess, scratch: Path) -> list[Path]:
    """The files that wait to be published, of a worker whose temporary folder this is."""
    assert worker.process.poll() is None
    return files_within(scratch)


def started(fleet: Fleet, location: Path, scratch: Path, **settings: object) -> WorkerProcess:
    """A worker whose artifacts go to the location."""
    scratch.mkdir()
    return fleet.start(environment={"TMPDIR": str(scratch)}, artifact_url=location, **settings)


@FAULTS
def test_checkpoints_that_cannot_be_written_cost_nothing_and_are_written_again_once_they_can(
    fleet: Fleet, make_study: MakeStudy, location: Path, tmp_path: Path, fault: Fault
) -> None:
    bench = make_study(trials=1, epochs=40, delay_seconds=0.1)
    with fault(location) as heal:
        worker = started(fleet, location, tmp_path / "scratch", checkpoint_interval_s=0.2)
        wait_for(lambda: worker.log().count("checkpoint_not_written") >= 2, what="two failures")
        assert checkpoint(bench) is None
        assert [path for path in files_within(location) if path.name != FILLER] == []
        heal()
        wait_for(lambda: checkpoint(bench) is not None, what="a checkpoint")
        assert over(bench) == "COMPLETED"
        assert (bench.trial(0).state, bench.trial(0).attempt) == ("COMPLETE", 1)
        wait_for(lambda: not left_in_scratch(worker, tmp_path / "scratch"), what="an empty scratch folder")
        bench.check()


@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_result_is_kept_whose_model_cannot_be_written_and_says_so(
    fleet: Fleet, database: Database, location: Path, tmp_path: Path
) -> None:
    worker = None
    for fault in (a_file_in_its_place, a_full_disk):
        with fault(location) as heal:
            worker = worker or started(fleet, location, tmp_path / "scratch", families="mlp")
            bench = network_study(database, name=fault.__name__)
            assert over(bench, 120) == "COMPLETED"
            trial = bench.trial(0)
            assert (trial.state, trial.attempt) == ("COMPLETE", 1)
            assert trial.value is not None
            assert artifacts(bench) == []
            with database.read() as session:
                told = session.get_one(TrialLog, (trial.id, 1)).text
            assert "ARTIFACT_NOT_WRITTEN" in told
            assert ("No space left" if fault is a_full_disk else "Not a directory") in told
            assert files_below(location, bench) == {}
            assert left_in_scratch(worker, tmp_path / "scratch") == []
            heal()
            again = network_study(database, name=f"after-{fault.__name__}")
            assert over(again, 60) == "COMPLETED"
            kept = {path: size for _, _, path, size in artifacts(again)}
            assert kept
            assert files_below(location, again) == kept
        if fault is a_file_in_its_place:
            shutil.rmtree(location)
