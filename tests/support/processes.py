"""Real worker processes for tests: started, watched, and ended whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from app.store.engine import Database
from tests.store.conftest import Bench

ROOT = Path(__file__).parents[2]
START_S = 60.0
NOTHING: Mapping[str, str] = MappingProxyType({})


def files_within(folder: Path) -> list[Path]:
    """All files below a folder, also while a process writes and deletes some: `rglob` fails at what has just gone."""
    return [Path(place) / name for place, _, names in os.walk(folder) for name in names]


def wait_for(condition: Callable[[], Any], deadline_s: float = 60.0, what: str = "") -> Any:
    """The first truthy answer of `condition`; fails after `deadline_s` seconds."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"Expected within {deadline_s:g} s: {what or condition}. It did not happen.")


@dataclass
class WorkerProcess:
    """A worker process and its trainer."""

    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def trainer_pid(self) -> int:
        """The pid of its trainer, once there is one."""

        def find() -> int | None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(self.pid).children():
                    if "worker.trainer" in " ".join(child.cmdline()):
                        return child.pid
            return None

        return int(wait_for(find, START_S, "a trainer"))

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def terminate(self) -> None:
        """Ask it to leave, once it hears signals: an interpreter that still imports dies of one."""
        wait_for(lambda: "worker_started" in self.log() or self.process.poll() is not None, START_S, "a started worker")
        self.signal(signal.SIGTERM)

    def wait(self, timeout_s: float = 60.0) -> int:
        return self.process.wait(timeout_s)

    def log(self) -> str:
        return self.log_path.read_text()


@dataclass
class Fleet:
    """Starts workers on one database and ends them all at the end of a test."""

    database: Database
    folder: Path
    workers: list[WorkerProcess] = field(default_factory=list)

    def start(
        self, *, families: str = "function", environment: Mapping[str, str] = NOTHING, **settings: Any
    ) -> WorkerProcess:
        """A new worker; `settings` are `FETTLE_*` settings by name, `environment` other variables."""
        variables = {
            "database_url": self.database.url.render_as_string(hide_password=False),
            "data_dir": self.folder,
            "families": families,
            "lease_ttl_s": 30,
            "drain_grace_s": 0,
        } | settings
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("FETTLE_")}
        given = {f"FETTLE_{name.upper()}": str(value) for name, value in variables.items()}
        log_path = self.folder / f"worker-{len(self.workers)}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker"],
                env=inherited | given | dict(environment),
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        self.workers.append(WorkerProcess(process, log_path))
        return self.workers[-1]

    def close(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                worker.signal(signal.SIGCONT)
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
            worker.process.wait()


@contextlib.contextmanager
def fleet_on(database: Database, folder: Path) -> Iterator[Fleet]:
    """A fleet whose processes end with the block; pytest shows their logs where a test fails."""
    fleet = Fleet(database, folder)
    try:
        yield fleet
    finally:
        fleet.close()
        for worker in fleet.workers:
            print(f"--- {worker.log_path.name} ---\n{worker.log()}")


def over(bench: Bench, deadline_s: float = 60.0) -> str:
    """The study's final state, once it has one."""
    final = ("COMPLETED", "STOPPED", "CANCELLED", "FAILED")
    return str(wait_for(lambda: bench.study().state in final and bench.study().state, deadline_s, "the study's end"))


def peak_parallel(events: list[dict[str, Any]]) -> int:
    """The most trials that ran at once, by the log."""
    running: set[int] = set()
    peak = 0
    for event in events:
        if event["type"] == "trial.started":
            running.add(event["trial"])
        elif event["type"] in ("trial.finished", "trial.retried"):
            running.discard(event["trial"])
        peak = max(peak, len(running))
    return peak
