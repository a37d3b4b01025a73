"""Copies of the SQLite files, taken at random moments while workers write at full speed, open and are consistent.

A stand-in for a power cut. A cut is one instant, so all writing processes are stopped (SIGSTOP) while the files are
copied, wherever they are: in the middle of transactions, of checkpoints, of the growth of the log. What a kernel would
keep of such an instant is at least what was synced, and SQLite with synchronous=NORMAL syncs the write-ahead log only
before it copies pages of it back into the database. So the copy's log is then cut at a random byte behind the last page
that was begun to be copied back, and something else may follow the cut, as on a disk that wrote sectors in its own
order. How far pages were copied back stands in the -shm file, which is read for this and never copied: it is memory,
and is gone after a cut.

Copying one file after the other without stopping the writers would be no such image: a checkpoint in between takes
pages out of the log that the copy of the database does not have yet.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psutil
from sqlalchemy import func, select

from app.domain.study import StudyDefinition
from app.store import lifecycle
from app.store.engine import Database
from app.store.tables import Event, Metric, Trial
from tests.store.conftest import Bench, bench_maker
from tests.support.processes import Fleet, fleet_on, over, wait_for

COPIES = 12
FINISHED = 2
"""How many of the copies are given to a worker that finishes the study."""
LOG_HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
BACKFILL_ATTEMPTED = slice(128, 132)
"""Where a -shm file says how far pages were begun to be copied back ("WAL-Index Format", nBackfillAttempted)."""


@contextmanager
def stopped(fleet: Fleet) -> Iterator[None]:
    """All of the fleet's processes stand still, where they are."""
    pids = [p.pid for w in fleet.workers for p in (psutil.Process(w.pid), *psutil.Process(w.pid).children())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for pid in pids:
            wait_for(lambda pid=pid: psutil.Process(pid).status() == psutil.STATUS_STOPPED, 10, "a stopped process")
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def copy(source: Path, target: Path, randomly: random.Random) -> bool:
    """Copy an SQLite database's files as a cut of the power would leave them; whether a part of the log is lost."""
    target.mkdir()
    shutil.copy(source, target / source.name)
    log = source.with_name(source.name + "-wal")
    kept = log.read_bytes() if log.exists() else b""
    lost = 0
    if len(kept) > LOG_HEADER_BYTES and randomly.random() < 0.75:
        page_bytes = struct.unpack(">I", kept[8:12])[0]
        (copied_back,) = struct.unpack("=I", source.with_name(source.name + "-shm").read_bytes()[BACKFILL_ATTEMPTED])
        first = LOG_HEADER_BYTES + copied_back * (page_bytes + FRAME_HEADER_BYTES)
        if first < len(kept):
            cut = randomly.randrange(first, len(kept))
            lost = len(kept) - cut
            kept = kept[:cut] + (randomly.randbytes(min(lost, 5000)) if randomly.random() < 0.5 else b"")
    (target / log.name).write_bytes(kept)
    return lost > 0


def consistent(bench: Bench) -> None:
    """The counters, events, metrics and results of the study tell the same story."""
    bench.check()
    trials, events = bench.trials(), bench.events()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    told = Counter((event["type"], event.get("trial")) for event in events)
    started = sorted((e["trial"], e["attempt"]) for e in events if e["type"] == "trial.started")
    assert started == [(t.number, attempt) for t in trials for attempt in range(1, t.attempt + 1)]
    with bench.database.read() as session:
        query = select(Trial.number, Metric.attempt, Metric.epoch).join(Trial, Trial.id == Metric.trial_id)
        recorded = sorted(tuple(row) for row in session.execute(query))
        assert session.scalar(select(func.count()).select_from(Event)) == len(events)
    assert sorted((e["trial"], e["attempt"], e["epoch"]) for e in events if e["type"] == "trial.metrics") == recorded
    epochs = Counter((number, attempt) for number, attempt, _ in recorded)
    for trial in trials:
        is_over = trial.state not in ("WAITING", "RUNNING")
        assert told["trial.finished", trial.number] == int(is_over)
        assert epochs[trial.number, trial.attempt] == trial.epochs
        if is_over:
            assert trial.value is not None
            assert trial.lease_token is None


def test_copies_of_a_moment_are_consistent_and_can_be_finished(sqlite_database: Database, tmp_path: Path) -> None:
    randomly = random.Random()
    epochs, file = 3, Path(str(sqlite_database.url.database))
    make: Callable[..., Bench] = bench_maker(sqlite_database)
    bench = make(
        training={"epochs": epochs, "select_epoch": "last"},
        sampler={"name": "random"},
        budget={"trials": 100_000},
        execution={"parallel_trials": 24, "max_attempts": 10},
    )
    with closing(sqlite3.connect(file)) as connection:  # a cut that loses the study as well would prove little
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    copies: list[Path] = []
    lost = 0
    with fleet_on(sqlite_database, tmp_path) as fleet:
        for _ in range(2):
            fleet.start(lease_ttl_s=2)
        wait_for(lambda: bench.study().complete >= 20, 60, "finished trials")
        for number in range(COPIES):
            before = bench.study().complete
            wait_for(lambda before=before: bench.study().complete > before, 60, "more finished trials")
            time.sleep(randomly.uniform(0.0, 0.2))  # the moment of the cut
            with stopped(fleet):
                copies.append(tmp_path / f"copy-{number}")
                lost += copy(file, copies[-1], randomly)
    assert lost > 0
    seen = []
    for path in copies:
        with ExitStack() as stack:
            copied = path / file.name
            database = Database(f"sqlite:///{copied}")
            stack.callback(database.dispose)
            with closing(sqlite3.connect(copied)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            there = Bench(database, bench.study_id, bench.public_id)
            consistent(there)
            seen.append(there.study().complete)
    assert len(set(seen)) > COPIES // 2, "the copies are of different moments"
    for path in randomly.sample(copies, FINISHED):
        finish(path, file.name, bench)


def finish(folder: Path, name: str, bench: Bench) -> None:
    """A worker that is given the copy finishes the study, whose budget is what has begun and a little more."""
    database = Database(f"sqlite:///{folder / name}")
    there = Bench(database, bench.study_id, bench.public_id)
    trials = there.study().next_number + 5
    body = StudyDefinition.model_validate_json(there.study().definition or "").model_dump(mode="json")
    there.act(lifecycle.update_study, StudyDefinition.model_validate(body | {"budget": {"trials": trials}}))
    with fleet_on(database, folder) as fleet:
        fleet.start(lease_ttl_s=2)
        assert over(there) == "COMPLETED"
    assert [t.state for t in there.trials()] == ["COMPLETE"] * trials
    consistent(there)
    database.dispose()
