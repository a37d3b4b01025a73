"""Services that are attacked over sockets, and the clients that do it."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from app.api.exposure import pepper_of
from app.domain.access import Scope
from app.settings import Settings
from app.store import keys
from app.store.engine import Database
from app.store.keys import NewKey
from tests.integration.wire import head
from tests.support.services import ServiceProcess

SMALL_WINDOW = 4_096
"""Bytes that a client which reads nothing lets its kernel take."""


@contextmanager
def descriptors(most: int) -> Iterator[None]:
    """A block in which processes are started that may have so many descriptors."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


def key_on(database: Database, data_dir: Path) -> dict[str, str]:
    """The header of a new key with all scopes, made as `fettle keys create` does."""
    pepper = pepper_of(Settings(data_dir=data_dir)).ensure()
    with database.write() as session:
        _, text = keys.create_key(session, NewKey(name="known", project="default", scopes=list(Scope)), pepper)
    return {"Authorization": f"Bearer {text}"}


def deaf(address: tuple[str, int], request: bytes = b"", *, window: int = SMALL_WINDOW) -> socket.socket:
    """A client that asks for something and reads nothing."""
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    wire.settimeout(30)
    try:
        wire.connect(address)
        wire.sendall(request)
    except ConnectionError:
        pass  # refused at once, as some are meant to be
    return wire


@contextmanager
def crowd(address: tuple[str, int], count: int, request: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many of them, as long as the block."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(deaf(address, request))) for _ in range(count)]


def held_by(service: ServiceProcess) -> int:
    """How many connections of clients the process holds descriptors of."""
    assert service.process is not None
    found = psutil.Process(service.process.pid).net_connections("tcp")
    return sum(one.status != psutil.CONN_LISTEN and one.laddr.port == service.port for one in found)


def own_address() -> str | None:
    """An address of this machine that is not loopback; None where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("198.51.100.1", 9))  # sends nothing
        found = str(probe.getsockname()[0])
        return None if found.startswith(("127.", "0.")) else found
    return None


DOCUMENT = head("GET", "/openapi.json")
