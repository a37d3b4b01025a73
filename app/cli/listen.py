"""The API in this process with its workers as children: they start once it listens, and stop with it."""

from __future__ import annotations

import gc
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

import typer
import uvicorn

from app.api.connections import server_options
from app.cli.children import DRAINED_CODE, Children
from app.cli.serve import environment, worker_command

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.api.readiness import Readiness
    from app.settings import Settings

OPEN_REQUESTS_GRACE_S = 3
"""Requests and streams still open after a stop signal get this long; streams take up again elsewhere by id."""
KILL_AFTER_DRAIN_S = 15.0
"""A worker still there this long after its drain should have ended is killed: its leases expire by themselves."""


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one. Leaves with exit code 2 where the address can't be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        typer.echo(
            f"fettle: Expected a free address at {host}:{port}. Received: {error.strerror or error}. "
            "Choose another with --port, or --port 0 for any free one.",
            err=True,
        )
        raise typer.Exit(2) from None
    bound.set_inheritable(False)
    return bound


def run(service: FastAPI, settings: Settings, bound: socket.socket, workers: int) -> int:
    """The exit code after serving until SIGINT or SIGTERM; 1 where the API could not start, 2 without a database."""
    host, port = bound.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    sharing = settings.model_copy(update={"workers_on_machine": max(workers, settings.workers_on_machine)})
    command = [*worker_command(), "--drained-status", str(DRAINED_CODE)]
    children = Children(command, environment(sharing), workers, grace_s=settings.drain_grace_s + KILL_AFTER_DRAIN_S)
    config = uvicorn.Config(
        service,
        log_config=None,  # its lines go the way of all others
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=OPEN_REQUESTS_GRACE_S,
        **server_options(settings),
    )
    server = _Server(config, url, children, service)
    try:
        server.run(sockets=[bound])
    finally:
        children.stop()
    return server.code


class _Server(uvicorn.Server):
    """uvicorn, telling when it serves and passing a stop on to the children at once."""

    def __init__(self, config: uvicorn.Config, url: str, children: Children, service: FastAPI) -> None:
        super().__init__(config)
        self._service = service
        self._url = url
        self._children = children
        self._signals = 0
        self._announced = False
        self.code = 1

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.should_exit:
            return
        gc.collect()
        gc.freeze()  # what was imported stays: whoever makes many objects for one request has it looked through for all
        self.code = 0
        self._announce()

    async def on_tick(self, counter: int) -> bool:
        readiness: Readiness = self._service.state.readiness
        self._announce()
        if readiness.failed and not readiness.arrived:
            typer.echo(f"fettle: {readiness.failed}", err=True)
            self.code, self.should_exit = 2, True
        return await super().on_tick(counter)

    def _announce(self) -> None:
        """Say where it serves, and let the workers come, once the database is there."""
        if self._service.state.readiness.arrived and not self._announced:
            self._announced = True
            typer.echo(f"Fettle is serving at {self._url} (API documentation at {self._url}/docs)")
            self._children.start()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn would put the old handlers back and raise the signal again; ours stay, for the workers still drain.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals == 1:
            self._children.drain()
        else:
            self._children.hurry()
        super().handle_exit(sig, frame)
        if self._signals == 1:
            with suppress(OSError):  # nobody reads it any more, where the terminal or the parent is gone
                typer.echo(
                    "Stopping: workers finish or give back their trials. Press Ctrl-C again to stop at once.", err=True
                )
