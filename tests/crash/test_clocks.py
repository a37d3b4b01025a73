"""Processes whose clocks are minutes off: leases, heartbeats and times are the database's clock's, whoever asks."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from app.store.engine import Database
from tests.acceptance.conftest import running_service
from tests.store.conftest import Bench
from tests.support.processes import Fleet, over, wait_for

MakeStudy = Callable[..., Bench]

OFF_S = 600.0
TTL_S = 2.0
SHIFTED = """
import datetime
import time

_time, _time_ns, _datetime = time.time, time.time_ns, datetime.datetime


class Shifted(_datetime):
    __slots__ = ()

    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls):
        return cls.fromtimestamp(time.time(), datetime.timezone.utc).replace(tzinfo=None)


time.time = lambda: _time() + OFFSET
time.time_ns = lambda: _time_ns() + int(OFFSET * 1e9)
datetime.datetime = Shifted
"""
"""Imported as a process starts: for all of its Python the clock on the wall is `OFFSET` seconds off."""


def off_by(folder: Path, seconds: float) -> dict[str, str]:
    """The environment of processes whose clock is so many seconds ahead, or behind."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SHIFTED.replace("OFFSET", repr(seconds)))
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


def holder(bench: Bench) -> int:
    """The process of the worker that is in the middle of a trial, once one is."""

    def found() -> str | None:
        return next((t.worker_id for t in bench.trials() if t.state == "RUNNING" and 2 <= t.epochs <= 15), None)

    return int(str(wait_for(found, what="a trial in training")).split("-")[-2])


def test_leases_and_times_are_judged_by_the_databases_clock_alone(
    fleet: Fleet, database: Database, make_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.time()
    behind = fleet.start(environment=off_by(tmp_path / "behind", -OFF_S), lease_ttl_s=TTL_S)
    url = database.url.render_as_string(hide_password=False)
    for name, value in off_by(tmp_path / "ahead", OFF_S).items():
        monkeypatch.setenv(name, value)
    with running_service(tmp_path, url, families="function", lease_ttl_s=str(TTL_S)) as client:
        wait_for(lambda: len(list(client.workers())) == 2, 60, "both workers")
        # Each trial is several leases long, and both look for expired ones all the while.
        execution = {"parallel_trials": 1, "checkpoints": "off"}
        bench = make_study(trials=2, epochs=40, delay_seconds=0.1, execution=execution)
        wait_for(lambda: bench.study().complete >= 1, 60, "the first trial")
        workers = list(client.workers())
        assert [worker.live for worker in workers] == [True, True]
        for worker in workers:
            heard_at = datetime.fromisoformat(worker.last_heartbeat_at).timestamp()
            assert began - 1 <= heard_at <= time.time() + 1
        assert client.study(bench.public_id).pending_reason is None
        assert "trial.retried" not in bench.kinds()
        os.kill(holder(bench), signal.SIGKILL)
        assert over(bench) == "COMPLETED"
    (logged,) = re.findall(r"timestamp='(\S+)' level='info' event='worker_started'", behind.log())
    assert began - OFF_S - 60 < datetime.fromisoformat(logged).timestamp() < began - OFF_S + 60
    assert [t.state for t in bench.trials()] == ["COMPLETE"] * 2
    assert sum(t.charged for t in bench.trials()) == 1
    for trial in bench.trials():
        assert [e for a, e in bench.metrics(trial.id) if a == trial.attempt] == list(range(40))
        assert began - 1 <= trial.created_at <= (trial.started_at or 0) <= (trial.finished_at or 0) <= time.time() + 1
    assert TTL_S <= silence(bench) < OFF_S / 2
    bench.check()


def silence(bench: Bench) -> float:
    """The seconds between the last metrics of the trial that was lost and its return to the queue."""
    events = bench.events()
    (back,) = [e for e in events if e["type"] == "trial.retried"]
    told = [e for e in events[: events.index(back)] if e["type"] == "trial.metrics" and e["trial"] == back["trial"]]
    return (datetime.fromisoformat(back["at"]) - datetime.fromisoformat(told[-1]["at"])).total_seconds()
