"""Disks that are full or can't be written: results are kept, what is missing is told, and the worker lives."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.store.engine import Database
from tests.crash.disks import Disk, small_disk
from tests.processes import fleet_on, over, wait_for
from tests.store.conftest import Bench, bench_maker

MakeStudy = Callable[..., Bench]


@pytest.fixture
def sqlite_on_a_small_disk(tmp_path: Path, migrated_sqlite_file: Path) -> Iterator[tuple[Database, Disk]]:
    with small_disk(tmp_path / "disk", "8m") as disk:
        shutil.copy(migrated_sqlite_file, disk.folder / "fettle.db")
        database = Database(f"sqlite:///{disk.folder / 'fettle.db'}")
        yield database, disk
        database.dispose()


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
        # Its keeper tries again, and so does whatever was to be recorded.
        wait_for(lambda: worker.log().count("database or disk is full") >= 3, what="the worker's complaints")
        known = bench.events()
        assert worker.process.poll() is None
        disk.free()
        assert over(bench) == "COMPLETED"
    assert [(t.state, t.attempt) for t in bench.trials()] == [("COMPLETE", 1)] * 12
    for trial in bench.trials():
        assert bench.metrics(trial.id) == [(1, epoch) for epoch in range(10)]
    assert bench.events()[: len(known)] == known
    assert bench.kinds().count("trial.finished") == 12
    bench.check()
