"""Requests that two parsers could understand in two ways, and clients that leave: a 400, and one line."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.store.engine import Database
from tests.hostile.wires import SMALL_WINDOW
from tests.integration.conftest import RunningService, function_study, serving
from tests.integration.stream_clients import append
from tests.integration.wire import connected, head, is_closed, problem, read_answer
from tests.support.processes import wait_for
from tests.support.services import ServiceProcess, service_on

JSON = "Content-Type: application/json"
CHECK = "/v1/studies:validate"
CHUNKED = "Transfer-Encoding: chunked"
EMPTY = b"2\r\n{}\r\n0\r\n\r\n"


@pytest.fixture(scope="module")
def service(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("protocol")
    (folder / "fettle.db").write_bytes(migrated_sqlite_file.read_bytes())
    database = Database(f"sqlite:///{folder / 'fettle.db'}")
    with serving(database, folder, body_timeout_s=20) as running:
        yield running
    database.dispose()


def chunked(body: bytes) -> bytes:
    return head("POST", CHECK, JSON, CHUNKED) + body


MALFORMED = {
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "the same host twice": b"GET /healthz HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\nAccept: */*\r\n\r\n",
    "two names as a host": b"GET /healthz HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "a URL as a host": b"GET /healthz HTTP/1.1\r\nHost: http://a/\r\n\r\n",
    "a user in a host": b"GET /healthz HTTP/1.1\r\nHost: a@b\r\n\r\n",
    **{
        f"the coding {coding}": head("POST", CHECK, JSON, f"Transfer-Encoding: {coding}") + EMPTY
        for coding in (
            "xchunked", "identity", "chunked, identity", "identity, chunked", "gzip, chunked", "chunked, chunked",
            "", "chunke", '"chunked"', "chunked;q=1", "x", "chunked,", "\x0bchunked",
        )
    },
    "two codings": head("POST", CHECK, JSON, CHUNKED, CHUNKED) + EMPTY,
    "a coding without a body": head("GET", "/healthz", "Transfer-Encoding: xchunked"),
    "a coding in HTTP/1.0": b"POST /v1/studies HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + EMPTY,
    "a length before a coding": head("POST", CHECK, JSON, "Content-Length: 2", CHUNKED) + EMPTY,
    "a length after a coding": head("POST", CHECK, JSON, CHUNKED, "Content-Length: 2") + EMPTY,
    "the same length twice": head("POST", CHECK, JSON, "Content-Length: 2", "Content-Length: 2") + b"{}",
    **{
        f"the length {length!r}": head("POST", CHECK, JSON, f"Content-Length: {length}") + b"{}"
        for length in ("", "-2", "+2", "2, 2", "0x2", "2e0", "9" * 30, "2 2", "２".encode().decode("latin-1"))
    },
    **{
        f"a chunk of the size {size!r}": chunked(size + b"\r\n{}\r\n0\r\n\r\n")
        for size in (b"f" * 17, b"1" + b"0" * 16, b"9" * 400, b"-2", b"+2", b"", b" 2", b"2 ", b"0x2", b"zz", b"2\t")
    },
    "a chunk without its end": chunked(b"2\r\n{}0\r\n\r\n"),
    "a chunk with bare line feeds": chunked(b"2\n{}\n0\n\n"),
    "a second chunk that is none": chunked(b"1\r\n{\r\nxx\r\n"),
    "bare line feeds": b"GET /healthz HTTP/1.1\nHost: a\n\n",
    "a bare line feed": b"GET /healthz HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "a bare carriage return": b"GET /healthz HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "a folded header": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    "a space before a colon": b"GET /healthz HTTP/1.1\r\nHost : a\r\n\r\n",
    "a space before a header": b"GET /healthz HTTP/1.1\r\n Host: a\r\n\r\n",
    "a header without a name": b"GET /healthz HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "another version": b"GET /healthz HTTP/1.2\r\nHost: a\r\n\r\n",
    "a tunnel": b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a body for another protocol": head("POST", CHECK, JSON, "Connection: Upgrade", "Upgrade: h2c", "Content-Length: 2")
    + b"{}",
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_what_can_be_understood_in_two_ways_is_a_400_and_ends_the_connection(
    service: RunningService, what: str
) -> None:
    hidden = head("GET", "/v1/studies?q=hidden")
    with connected(service.url) as wire:
        wire.sendall(MALFORMED[what] + hidden)
        answer = read_answer(wire)
        assert (answer.status, problem(answer)["code"]) == (400, "BAD_REQUEST"), what
        assert answer.headers["connection"] == "close"
        rest = b""
        with contextlib.suppress(ConnectionError):
            while part := wire.recv(65_536):
                rest += part
        assert rest == b"", "what stands behind it is no request"


@pytest.mark.parametrize(
    "size", [b"2", b"02", b"0000000000000002", b"2;x=y", b'2;x="y"', b"2;x"], ids=lambda size: size.decode()
)
def test_chunks_that_can_be_understood_in_one_way_are_read(service: RunningService, size: bytes) -> None:
    for coding in ("chunked", "Chunked", "CHUNKED", " chunked "):
        with connected(service.url) as wire:
            wire.sendall(head("POST", CHECK, JSON, f"Transfer-Encoding: {coding}") + size + b"\r\n{}\r\n0\r\n\r\n")
            assert read_answer(wire).status == 422
            wire.sendall(head("GET", "/healthz"))
            assert read_answer(wire).status == 200


def test_an_earlier_request_is_answered_before_a_broken_one(service: RunningService) -> None:
    with connected(service.url) as wire:
        wire.sendall(head("GET", "/healthz") + MALFORMED["two hosts"])
        assert read_answer(wire).status == 200
        assert is_closed(wire)


def test_another_protocol_is_not_spoken(service: RunningService) -> None:
    """An offer of one is answered in HTTP/1.1, and ends the connection: what follows may be of either."""
    with connected(service.url) as wire:
        wire.sendall(head("GET", "/healthz", "Connection: Upgrade", "Upgrade: websocket"))
        answer = read_answer(wire)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert is_closed(wire)


# -- clients that leave -----------------------------------------------------------------------------------------------


def reset(wire: socket.socket) -> None:
    """End a connection at once, as a client does that dies."""
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()


@pytest.mark.parametrize("leave", [reset, socket.socket.close], ids=["reset", "closed"])
def test_a_client_that_leaves_is_one_line(
    sqlite_database: Database, tmp_path: Path, leave: Callable[[socket.socket], None]
) -> None:
    with service_on(sqlite_database, tmp_path, log_format="json") as service:
        with service.client() as client:
            study = client.post("/v1/studies", json=function_study()).json()["id"]
        append(sqlite_database, study, 200, padding="x" * 50_000)
        form = "Content-Type: multipart/form-data; boundary=b"
        file = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\nx,y\r\n'
        in_answer = {
            "stream": head("GET", f"/v1/studies/{study}/events"),
            "all streams": head("GET", "/v1/events"),
            "page": head("GET", f"/v1/studies/{study}/events?limit=200", "Accept: application/json"),
            "export": head("GET", f"/v1/studies/{study}/export?format=parquet"),
            "document": head("GET", "/openapi.json"),
        }
        in_body = {
            "upload": head("POST", "/v1/datasets", form, "Content-Length: 50000") + file,
            "definition": head("POST", "/v1/studies", JSON, "Content-Length: 5000") + b'{"name":',
            "chunks": head("POST", "/v1/studies", JSON, CHUNKED) + b'8\r\n{"name":\r\n',
        }
        for what, request in (in_answer | in_body).items():
            identity = f"left-{what.replace(' ', '-')}"
            wire = socket.socket()
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
            wire.connect(("127.0.0.1", service.port))
            wire.sendall(request.replace(b"Host:", f"X-Request-ID: {identity}\r\nHost:".encode(), 1))
            if what in in_answer:
                assert wire.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200", what
            leave(wire)
            wait_for(lambda identity=identity: lines_of(service, identity), 30, f"a line about the {what}")
        assert httpx.get(f"{service.url}/healthz").status_code == 200
        for what in in_answer | in_body:
            (line,) = lines_of(service, f"left-{what.replace(' ', '-')}")
            assert (line["event"], line["level"]) == ("request", "info"), line
        levels = {line["level"] for line in lines_of(service, None)}
        assert levels <= {"info", "debug"}, service.log()[-3_000:]


def test_a_client_that_leaves_while_requests_wait_is_no_error(sqlite_database: Database, tmp_path: Path) -> None:
    with service_on(sqlite_database, tmp_path, log_format="json") as service:
        for leave in (reset, socket.socket.close):
            wire = socket.create_connection(("127.0.0.1", service.port))
            wire.sendall(head("GET", "/openapi.json") * 50)
            assert wire.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
            leave(wire)
            with service.client() as client:  # what was waiting is met before this one, or never
                assert client.get("/v1/studies").status_code == 200
        assert service.terminate() == 0
        assert {line["level"] for line in lines_of(service, None)} <= {"info", "debug"}


def lines_of(service: ServiceProcess, identity: str | None) -> list[dict[str, Any]]:
    """The lines of a request, or all of them."""
    lines = [json.loads(line) for line in service.log().splitlines() if line.startswith("{") and line.endswith("}")]
    return [line for line in lines if identity is None or line.get("request_id") == identity]
