"""Five hundred clients that follow one study while 200 events a second are committed: does every event reach every
client, and how long after its commit?

    python -m bench.stream [SECONDS] [CLIENTS] [RATE]

A real service, a writer process that commits through `app.store.log`, and client processes with plain sockets on the
loopback interface share this machine's cores. An event carries the time just before its commit: delays include that.
"""

from __future__ import annotations

import array
import asyncio
import json
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
from sqlalchemy import select

from app.domain.json import dumps
from app.store import log
from app.store.engine import Database
from app.store.log import NewEvent
from app.store.migrate import migrate
from app.store.tables import Study
from bench.overhead import databases
from bench.service import Service, service
from bench.table import Row, show

SECONDS, CLIENTS, RATE = 20.0, 500, 200
CLIENT_PROCESSES = 2
CONNECT_AT_ONCE = 50
GOAL_MS = 500.0
IDS = re.compile(rb"^id: (\d+)$", re.MULTILINE)
STAMPS = re.compile(rb'"seq":(\d+),.*?"stamp":([\d.]+)')
STUDY = {
    "name": "followed",
    "model": {"family": "function"},
    "hyperparameters": {"x0": {"type": "float", "low": -5.0, "high": 5.0}},
    "objectives": [{"metric": "value"}],
    "budget": {"trials": 10},
}


def write(url: str, public_id: str, seconds: float, rate: float) -> None:
    """Commit `rate` events a second, one at a time, or together those that became due during the last commit."""
    database = Database(url)
    with database.read() as session:
        study_id = session.scalars(select(Study.id).where(Study.public_id == public_id)).one()
    started, total, told, commits = time.monotonic(), round(seconds * rate), 0, 0
    while told < total:
        due = min(total, int((time.monotonic() - started) * rate) + 1)
        with database.write() as session:
            at = log.clock(session)
            fields = {"attempt": 1, "metrics": METRICS, "stamp": time.monotonic()}
            events = [NewEvent("trial.metrics", {"epoch": i % 10, **fields}, i // 10) for i in range(told, due)]
            log.append(session, study_id, public_id, events, at=at)
        told, commits = due, commits + 1
        time.sleep(max(0.0, started + told / rate - time.monotonic()))
    print(dumps({"seconds": time.monotonic() - started, "cpu": time.process_time(), "commits": commits}))


METRICS = dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds"), 0.123456789)


@dataclass
class Follower(asyncio.Protocol):
    """One client: notes when which events arrived. Its first bytes are the answer's headers."""

    path: str
    ready: asyncio.Event
    ended: asyncio.Event
    keep_stamps: bool = False
    last: int = 0
    broken: str = ""
    arrivals: array.array[float] = field(default_factory=lambda: array.array("d"))
    numbers: array.array[int] = field(default_factory=lambda: array.array("q"))
    stamps: dict[int, float] = field(default_factory=dict)
    rest: bytes = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(f"GET {self.path} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        whole, end, rest = (self.rest + data).rpartition(b"\n\n")
        self.rest = rest
        if not end:
            return
        numbers = [int(text) for text in IDS.findall(whole)]
        if not numbers:
            return
        if numbers != list(range(self.last + 1, self.last + 1 + len(numbers))):
            self.broken = self.broken or f"expected {self.last + 1}, received {numbers[:3]}…{numbers[-1]}"
        self.last = numbers[-1]
        self.arrivals.append(now)
        self.numbers.append(self.last)
        if self.keep_stamps:
            self.stamps.update((int(seq), float(stamp)) for seq, stamp in STAMPS.findall(whole))
        self.ready.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.ended.set()


async def follow(url: str, public_id: str, clients: int) -> dict[str, Any]:
    """Follow the study with many clients until it ends; their delays in milliseconds, and what went wrong."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    followers = [
        Follower(f"/v1/studies/{public_id}/events", asyncio.Event(), asyncio.Event(), keep_stamps=i == 0)
        for i in range(clients)
    ]
    for i in range(0, clients, CONNECT_AT_ONCE):
        some = followers[i : i + CONNECT_AT_ONCE]
        for one in some:
            await loop.create_connection(lambda one=one: one, parts.hostname, parts.port, family=socket.AF_INET)  # type: ignore[misc]
        await asyncio.gather(*(one.ready.wait() for one in some))
    print("ready", flush=True)
    await asyncio.gather(*(one.ended.wait() for one in followers))
    stamps = followers[0].stamps
    delays = np.concatenate([_delays(one, stamps) for one in followers])
    return {
        "last": sorted({one.last for one in followers}),
        "broken": [one.broken for one in followers if one.broken],
        "reads": sum(len(one.numbers) for one in followers),
        "delays_ms": np.percentile(delays, PERCENTS).tolist(),
        "events": len(delays),
        "cpu": time.process_time(),
    }


PERCENTS = [*range(101), 99.5, 99.9]


def _delays(one: Follower, stamps: dict[int, float]) -> np.ndarray[Any, Any]:
    """Milliseconds from each stamped event's commit to its arrival."""
    seqs = np.array([seq for seq in stamps if seq <= one.last])
    arrived = np.array(one.arrivals)[np.searchsorted(np.array(one.numbers), seqs)]
    return 1000 * (arrived - np.array([stamps[int(seq)] for seq in seqs]))


@dataclass(frozen=True, slots=True)
class Followed:
    """What came of one run; delays in milliseconds from commit to receipt."""

    p50: float
    p95: float
    p99: float
    most: float
    note: str


def run(url: str, running: Service, seconds: float, clients: int, rate: float) -> Followed:
    """Stream one study's events to all clients."""
    study = running.http.post("/v1/studies", json=STUDY).raise_for_status().json()
    each = clients // CLIENT_PROCESSES
    command = [sys.executable, "-m", "bench.stream", "--follow", running.url, study["id"], str(each)]
    with started([command] * CLIENT_PROCESSES) as followers:
        for process in followers:
            line = _output(process).readline()
            if line.strip() != "ready":
                raise RuntimeError(f"Expected clients that connect. Received: {line}")
        before = psutil.Process(running.pid).cpu_times()
        command = [sys.executable, "-m", "bench.stream", "--write", url, study["id"], str(seconds), str(rate)]
        writer = subprocess.run(command, capture_output=True, text=True, check=True)
        after = psutil.Process(running.pid).cpu_times()
        running.http.post(f"/v1/studies/{study['id']}:cancel").raise_for_status()
        told = [json.loads(_output(process).read()) for process in followers]
    wrote = json.loads(writer.stdout)
    expected = round(seconds * rate) + 2
    for one in told:
        if one["last"] != [expected] or one["broken"]:
            raise RuntimeError(
                f"Expected {expected} events in order. Received up to {one['last']}: {one['broken'][:3]}"
            )
    # The processes have as many clients each: the worse of two percentiles is no less than that of all.
    p50, p95, p99, most = (max(one["delays_ms"][p] for one in told) for p in (50, 95, 99, 100))
    server = (after.user + after.system - before.user - before.system) / wrote["seconds"]
    parsing = sum(one["cpu"] for one in told) / wrote["seconds"]
    note = (
        f"p50 {p50:.0f}, p99 {p99:.0f}, most {most:.0f} ms; {expected / wrote['seconds']:.0f} events and "
        f"{wrote['commits'] / wrote['seconds']:.0f} commits/s; of one core: "
        f"service {server:.0%}, clients {parsing:.0%}, writer {wrote['cpu'] / wrote['seconds']:.0%}"
    )
    return Followed(p50, p95, p99, most, note)


def _output(process: subprocess.Popen[str]) -> Any:
    if process.stdout is None:
        raise RuntimeError("Expected a pipe from the process.")
    return process.stdout


@contextmanager
def started(commands: list[list[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes whose output is read; killed at the end of the block where they haven't ended."""
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            _output(process).close()


def rows(repetitions: int, seconds: float = SECONDS, clients: int = CLIENTS, rate: float = RATE) -> list[Row]:
    """One row a back end: the 95th percentile of the delay, once every event reached every client in order."""
    allow_files(2 * clients + 200)
    found = []
    with databases() as urls:
        for backend, (url, _) in urls.items():
            database = Database(url)
            migrate(database)
            database.dispose()
            runs = []
            for _ in range(repetitions):
                with service(workers=0, database_url=url) as running:
                    runs.append(run(url, running, seconds, clients, rate))
                    running.http.delete(_last_study(running)).raise_for_status()
            delays = [one.p95 for one in runs]
            row = Row(f"{clients} clients at {rate:g} events/s, {backend}: p95 after commit", "ms", delays)
            row.goal, row.met = f"<= {GOAL_MS:g} ms", sorted(delays)[len(delays) // 2] <= GOAL_MS
            row.note = runs[-1].note
            found.append(row)
    return found


def _last_study(running: Service) -> str:
    (study,) = running.http.get("/v1/studies?limit=1").json()["items"]
    return f"/v1/studies/{study['id']}"


def allow_files(count: int) -> None:
    """Let this process and those that it starts open so many files.

    Raises:
        RuntimeError: the machine's hard limit is below that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise RuntimeError(f"Expected a limit of at least {count} open files. Received: {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--write"]:
        write(arguments[1], arguments[2], float(arguments[3]), float(arguments[4]))
    elif arguments[:1] == ["--follow"]:
        print(json.dumps(asyncio.run(follow(arguments[1], arguments[2], int(arguments[3])))))
    else:
        given = [*map(float, arguments), *(SECONDS, CLIENTS, RATE)[len(arguments) :]]
        show(rows(1, given[0], int(given[1]), given[2]))


if __name__ == "__main__":
    main(sys.argv[1:])
