"""Receivers of webhooks whose answers never end: little of them is read, and the API doesn't wait for it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.store.engine import Database
from app.webhooks.measuring import MAX_WIRE_BYTES
from tests.integration.conftest import RunningService, serving
from tests.support.processes import wait_for

LOOPBACK = {"webhook_allowed_networks": "127.0.0.0/8", "webhook_timeout_s": 20.0, "webhook_retry_s": 3600.0}
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Flood:
    """What a receiver has sent, and how often it was asked."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.sent = 0
        self.asked = 0
        self.ended = 0


@contextmanager
def flooding(first: bytes, endless: bytes) -> Iterator[Flood]:
    """A receiver that answers `first`, and then `endless` again and again as fast as it is read."""
    listener = socket.create_server(("127.0.0.1", 0))
    flood = Flood(listener.getsockname()[1])
    piece = endless * max(1, 65_536 // len(endless))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, _ = listener.accept()
                flood.asked += 1
                with wire, contextlib.suppress(OSError):
                    wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
                    wire.settimeout(30)
                    wire.recv(65_536)
                    wire.sendall(first)
                    while True:
                        wire.sendall(piece)
                        flood.sent += len(piece)
                flood.ended += 1

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield flood
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(35)


@pytest.fixture
def service(sqlite_database: Database, tmp_path: Path) -> Iterator[RunningService]:
    with serving(sqlite_database, tmp_path, **LOOPBACK) as running:
        yield running


ANSWERS: dict[str, tuple[bytes, bytes, bool]] = {
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", False),
    "hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", False),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", False),
    "one header": (b"HTTP/1.1 200 OK\r\nX: ", b"y", False),
    "chunks of a byte": (HEAD, b"1\r\nx\r\n", True),
    "extensions of a chunk": (HEAD + b"1;", b"x=y;", True),
    "a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"x", True),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_without_end_is_left_after_a_few_bytes(service: RunningService, what: str) -> None:
    """Where the status has come, it counts; without one the delivery has failed, and the webhook says why."""
    first, endless, is_delivered = ANSWERS[what]
    with flooding(first, endless) as flood:
        created = service.client.post("/v1/webhooks", json={"url": flood.url}).json()
        service.create()
        wait_for(lambda: flood.ended >= 1, 20, "the end of the first delivery")
        # What lies in the buffers of both kernels was sent, but is read by nobody.
        assert flood.sent < MAX_WIRE_BYTES + 8 * 2**20

        def told() -> Any:
            found = service.client.get(f"/v1/webhooks/{created['id']}").json()
            return found if found["last_status"] or found["last_error"] else None

        found = wait_for(told, 20, "what became of it")
        if is_delivered:
            assert found["last_status"] == 200
        else:
            assert "Received more" in found["last_error"] or "ProtocolError" in found["last_error"]


def test_a_receiver_of_interim_answers_without_end_slows_nobody(service: RunningService) -> None:
    with flooding(*ANSWERS["interim answers"][:2]) as flood:
        for _ in range(8):
            service.client.post("/v1/webhooks", json={"url": flood.url})
        service.create()
        slowest = longest_answer(service, lambda: flood.ended >= 8)
        assert slowest < 2, "a request waited for what a receiver sends"


def longest_answer(service: RunningService, until: Callable[[], bool]) -> float:
    """Seconds that the slowest of many simple calls took, until something has happened."""
    slowest, ends = 0.0, time.monotonic() + 30
    while not until():
        began = time.monotonic()
        assert began < ends, "the deliveries did not end"
        assert service.client.get("/healthz").status_code == 200
        slowest = max(slowest, time.monotonic() - began)
    return slowest
