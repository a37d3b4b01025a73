"""HTTP by hand: what no well-behaved client sends."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

DEADLINE_S = 30.0


@dataclass(frozen=True)
class Answer:
    """What came back, until the server closed or the body was whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    """A connection to the service at `url`."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=DEADLINE_S) as wire:
        yield wire


def head(method: str, path: str, *lines: str, host: str = "127.0.0.1") -> bytes:
    """A request's head."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode("latin-1")


def read_answer(wire: socket.socket) -> Answer:
    """The next answer on the connection."""
    with wire.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        if status == 100:
            stream.readline()
            status = int(stream.readline().split()[1])
        headers: dict[str, str] = {}
        while line := stream.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        return Answer(status, headers, stream.read(length))


def is_closed(wire: socket.socket) -> bool:
    """Whether the server ends the connection, within the deadline."""
    try:
        while wire.recv(65_536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def send_chunks(wire: socket.socket, chunks: Iterable[bytes]) -> int:
    """Send chunks of a body until the server stops taking them; the bytes sent."""
    sent = 0
    try:
        for chunk in chunks:
            wire.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            sent += len(chunk)
        wire.sendall(b"0\r\n\r\n")
    except (ConnectionError, TimeoutError):
        pass
    return sent


def problem(answer: Answer) -> dict[str, Any]:
    """The problem that an answer tells."""
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = json.loads(answer.body)
    assert found["status"] == answer.status
    return found


def status_of(wire: socket.socket) -> int:
    """The status of an answer that doesn't end; its first line alone is read."""
    line = b""
    while not line.endswith(b"\r\n"):
        part = wire.recv(1)
        assert part, line
        line += part
    return int(line.split()[1])


def trickled(wire: socket.socket, bit: bytes, timeout_s: float = 20.0) -> bytes:
    """The first bytes that the service answers while it is sent `bit` again and again, each within its patience."""
    wire.settimeout(0.05)
    ends = time.monotonic() + timeout_s
    received = b""
    while not received and time.monotonic() < ends:
        with contextlib.suppress(TimeoutError):
            received = wire.recv(12)
        if not received:
            wire.sendall(bit)
    return received
