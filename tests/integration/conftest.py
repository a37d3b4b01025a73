"""A real service on a free port, in a thread of the test process, over each database in turn."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from app.api.connections import server_options
from app.api.readiness import ABSENT
from app.main import create_app
from app.settings import Settings
from app.store.engine import Database
from app.store.migrate import migrate


@dataclass(frozen=True)
class RunningService:
    """A service that answers, a client of it, and its database."""

    url: str
    client: httpx.Client
    database: Database
    settings: Settings
    app: Any

    def create(self, **changes: Any) -> dict[str, Any]:
        """Post a study of the family `function`, changed so; the Study."""
        response = self.client.post("/v1/studies", json=function_study(**changes))
        assert response.status_code == 201, response.text
        study: dict[str, Any] = response.json()
        return study


def function_study(**changes: Any) -> dict[str, Any]:
    """The smallest definition that needs no data set."""
    definition = {
        "name": "sphere",
        "model": {"family": "function"},
        "hyperparameters": {"x0": {"type": "float", "low": -5.0, "high": 5.0}},
        "objectives": [{"metric": "value"}],
        "budget": {"trials": 10},
    }
    return definition | changes


@contextmanager
def serving(database: Database, data_dir: Path, **settings: Any) -> Iterator[RunningService]:
    """Serve `database` until the end of the block."""
    url = database.url.render_as_string(hide_password=False)
    chosen = Settings(data_dir=data_dir, database_url=url, stream_poll_s=0.02, **settings)
    app = create_app(chosen)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=10, **server_options(chosen))
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    # It listens before its database is there, on a machine that is busy enough.
    while not (server.started and app.state.readiness.reason != ABSENT) and time.monotonic() < deadline:
        thread.join(0.005)
    assert server.started
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    # The first insight waits until a child has imported what computes, on a machine that is busy enough.
    with httpx.Client(base_url=address, timeout=60) as client:
        yield RunningService(address, client, database, chosen, app)
    server.should_exit = True
    thread.join(20)
    listener.close()
    assert not thread.is_alive()


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., Any]:
    """`serve(database, **settings)`: a context that serves a database with these settings."""

    def start(database: Database, **settings: Any) -> Any:
        return serving(database, tmp_path, **settings)

    return start


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[RunningService]:
    """A service over each database in turn."""
    with serving(database, tmp_path) as running:
        yield running


@pytest.fixture
def study() -> Callable[..., dict[str, Any]]:
    """`study(**changes)`: a definition of the family `function`."""
    return function_study


@pytest.fixture(scope="module")
def serve_module(request: pytest.FixtureRequest) -> Callable[[str, Path], Any]:
    """`serve_module(backend, folder)`: a context that serves a fresh database of that kind, for a whole module."""

    @contextmanager
    def start(backend: str, folder: Path) -> Iterator[RunningService]:
        server = None
        if backend == "sqlite":
            url = f"sqlite:///{folder / 'fettle.db'}"
        else:
            server = request.getfixturevalue("postgres_server")
            name = server.create()
            url = server.url(name)
        database = Database(url)
        migrate(database)
        try:
            with serving(database, folder) as running:
                yield running
        finally:
            database.dispose()
            if server is not None:
                server.drop(name)

    return start
