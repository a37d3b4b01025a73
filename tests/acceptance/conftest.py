"""A whole service, API and one worker with TensorFlow, on each database; one for all tests of a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.client import FettleClient
from tests.support.processes import ROOT, wait_for


@contextmanager
def running_service(folder: Path, database_url: str, **settings: str) -> Iterator[FettleClient]:
    """`fettle up` on a free port, and a client to it; its log is printed at the end."""
    log_path = folder / "service.log"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FETTLE_")}
    environment |= {"FETTLE_DATABASE_URL": database_url, "FETTLE_DRAIN_GRACE_S": "0"}
    environment |= {f"FETTLE_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "app", "up", "--port", "0", "--device", "cpu", "--data-dir", str(folder / "data")]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
    try:
        found = wait_for(lambda: re.search(r"http://[\d.:]+", log_path.read_text()), 60, "the service's address")
        with FettleClient(found.group()) as client:
            wait_for(lambda: _is_ready(client), 60, "a ready service")
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()
        print(log_path.read_text())


def _is_ready(client: FettleClient) -> bool:
    try:
        return client.ready()
    except Exception:  # noqa: BLE001 - whatever it says while it starts
        return False


BACKENDS = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgres))


@contextmanager
def place_for_service(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[Path, str]]:
    """A folder for a service, and the URL of an empty database of the kind that `request` is for."""
    if request.param == "sqlite":
        yield folder, f"sqlite:///{folder / 'fettle.db'}"
        return
    server = request.getfixturevalue("postgres_server")
    name = server.create()
    yield folder, server.url(name)
    server.drop(name)


@pytest.fixture(scope="session", params=BACKENDS)
def service_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder and the database's URL of the service that `client` speaks to."""
    with place_for_service(request, tmp_path_factory.mktemp("service")) as place:
        yield place


@pytest.fixture(scope="session")
def client(service_url: tuple[Path, str]) -> Iterator[FettleClient]:
    """A client to a service with one worker, the same for all tests: no two name a study alike."""
    with running_service(*service_url) as client:
        yield client


@pytest.fixture(scope="module", params=BACKENDS)
def own_service_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, str]]:
    """The same, for a module that needs a service with other settings: two on one database would share their work."""
    with place_for_service(request, tmp_path_factory.mktemp("service")) as place:
        yield place
