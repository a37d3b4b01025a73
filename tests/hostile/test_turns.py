"""What computes for a request: it ends with the request."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from fastapi import FastAPI, Request

from app.compute import Bounds
from app.store.engine import Database
from tests.integration.conftest import serving
from tests.support import computations
from tests.support.processes import wait_for

BOUNDS = Bounds(seconds=600)


def add_route(app: FastAPI, note: Path) -> None:
    """A path of the service that sleeps in a child process."""

    async def sleep(request: Request) -> None:
        await app.state.service.turns.compute(request, computations.note_and_sleep, str(note), 600.0, bounds=BOUNDS)

    app.router.add_route("/sleep", sleep)


@pytest.mark.parametrize("leaving", ["closes", "resets"])
def test_a_client_that_leaves_takes_its_computation_with_it(
    sqlite_database: Database, tmp_path: Path, leaving: str
) -> None:
    note = tmp_path / "pid"
    with serving(sqlite_database, tmp_path) as service:
        add_route(service.app, note)
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"GET /sleep HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_for(lambda: note.exists() and note.read_text(), 60, "a child that sleeps")
            child = psutil.Process(int(note.read_text()))
            if leaving == "resets":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait_for(lambda: not child.is_running(), 30, "the end of the child")
        assert service.client.get("/healthz").status_code == 200


def test_files_that_are_read_for_long_keep_no_plot_waiting(sqlite_database: Database, tmp_path: Path) -> None:
    notes = [tmp_path / "first", tmp_path / "second"]
    with serving(sqlite_database, tmp_path) as service, ExitStack() as stack:
        study = service.create()

        async def read(request: Request) -> None:
            reading = service.app.state.service.reading
            note = request.query_params["note"]
            await reading.compute(request, computations.note_and_sleep, note, 600.0, bounds=BOUNDS)

        service.app.router.add_route("/read", read)
        host, port = service.url.removeprefix("http://").split(":")
        for note in notes:
            connection = stack.enter_context(socket.create_connection((host, int(port))))
            connection.sendall(f"GET /read?note={note} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_for(lambda: all(note.exists() for note in notes), 60, "two files that are read")
        plot = service.client.get(f"/v1/studies/{study['id']}/plots/history", timeout=60)
        assert plot.status_code == 200, plot.text
