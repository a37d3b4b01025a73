"""Requests that are too large, too slow or lie about their size: refused in words, in bounded memory and time."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.api.connections import MAX_HEADER_BYTES, MAX_HEADERS, MAX_URL_BYTES
from app.store.engine import Database
from tests.integration.conftest import RunningService, serving
from tests.integration.wire import connected, head, is_closed, problem, read_answer, send_chunks, trickled
from tests.support.processes import wait_for

JSON = "Content-Type: application/json"
POST = "/v1/studies"
MB = 2**20


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, serve_small: Any) -> Iterator[RunningService]:
    """A service with small limits: bodies of 64 kB in a second, heads in half a second."""
    with serve_small() as running:
        yield running


@pytest.fixture(scope="module")
def serve_small(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    @contextlib.contextmanager
    def start(**settings: Any) -> Iterator[RunningService]:
        folder = tmp_path_factory.mktemp("small")
        (folder / "fettle.db").write_bytes(migrated_sqlite_file.read_bytes())
        database = Database(f"sqlite:///{folder / 'fettle.db'}")
        limits = {"max_body_bytes": 65_536, "max_upload_bytes": MB, "body_timeout_s": 1.0, "header_timeout_s": 0.5}
        with serving(database, folder, **(limits | settings)) as running:
            yield running
        database.dispose()

    return start


def still_well(service: RunningService) -> None:
    """The service answers others, and did not meet an error of its own."""
    assert httpx.get(f"{service.url}/healthz").status_code == 200


# -- bodies -----------------------------------------------------------------------------------------------------------


def test_a_body_announced_too_large_is_refused_before_it_is_sent(small: RunningService) -> None:
    with connected(small.url) as wire:
        wire.sendall(head("POST", POST, JSON, "Content-Length: 999999999999"))
        answer = read_answer(wire)
        assert (answer.status, answer.code) == (413, "BODY_TOO_LARGE")
        assert answer.headers["connection"] == "close"
        assert is_closed(wire)


def test_a_client_that_waits_for_leave_to_send_is_refused_without_it(small: RunningService) -> None:
    with connected(small.url) as wire:
        wire.sendall(head("POST", POST, JSON, "Content-Length: 70000", "Expect: 100-continue"))
        assert wire.recv(9, socket.MSG_WAITALL) == b"HTTP/1.1 "
        assert wire.recv(3, socket.MSG_WAITALL) == b"413"
        assert is_closed(wire)


def test_a_client_that_waits_for_leave_to_send_gets_it_for_a_body_of_the_right_size(small: RunningService) -> None:
    with connected(small.url) as wire:
        wire.sendall(head("POST", "/v1/studies:validate", JSON, "Content-Length: 2", "Expect: 100-continue"))
        assert wire.recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.sendall(b"{}")
        assert read_answer(wire).status == 422


def test_a_chunked_body_of_300_mb_is_cut_in_flat_memory(small: RunningService) -> None:
    before = psutil.Process().memory_info().rss
    peak = before
    chunk = b"x" * MB

    def chunks() -> Iterator[bytes]:
        nonlocal peak
        for _ in range(300):
            peak = max(peak, psutil.Process().memory_info().rss)
            yield chunk

    with connected(small.url) as wire:
        wire.settimeout(5)
        wire.sendall(head("POST", POST, JSON, "Transfer-Encoding: chunked"))
        sent = send_chunks(wire, chunks())
        answer = read_answer(wire)
    assert (answer.status, answer.code) == (413, "BODY_TOO_LARGE")
    assert sent > MB  # it was let talk on for a moment, so that it hears the answer
    assert peak - before < 40 * MB
    still_well(small)


@pytest.mark.parametrize("size", [65_537, 5 * MB])
def test_an_ordinary_client_hears_that_its_body_is_too_large(small: RunningService, size: int) -> None:
    for content in (b"x" * size, iter([b"x" * size])):
        response = small.client.post(POST, content=content, headers={"Content-Type": "application/json"})
        assert (response.status_code, response.json()["code"]) == (413, "BODY_TOO_LARGE")


def test_a_body_that_is_encoded_is_refused(small: RunningService) -> None:
    for encoding in ("gzip", "deflate", "br", "gzip, identity"):
        headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
        response = small.client.post(POST, content=b"{}", headers=headers)
        assert (response.status_code, response.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    response = small.client.post(
        "/v1/studies:validate",
        content=b"{}",
        headers={"Content-Encoding": "identity", "Content-Type": "application/json"},
    )
    assert response.status_code == 422


def test_a_body_that_never_ends_is_given_up(small: RunningService) -> None:
    with connected(small.url) as wire:
        began = time.monotonic()
        wire.sendall(head("POST", POST, JSON, "Content-Length: 70") + b'{"name":')
        answer = read_answer(wire)
        assert (answer.status, answer.code) == (408, "REQUEST_TIMEOUT")
        assert time.monotonic() - began >= 0.9
        assert is_closed(wire)


def test_a_body_that_trickles_is_given_up_though_each_wait_is_short(small: RunningService) -> None:
    with connected(small.url) as wire:
        wire.sendall(head("POST", POST, JSON, "Transfer-Encoding: chunked"))
        assert trickled(wire, b"1\r\n \r\n") == b"HTTP/1.1 408"


def test_an_upload_that_trickles_is_given_up(small: RunningService) -> None:
    with connected(small.url) as wire:
        kind = "Content-Type: multipart/form-data; boundary=b"
        wire.sendall(head("POST", "/v1/datasets", kind, "Content-Length: 500000"))
        wire.sendall(b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\nx,y\r\n')
        answer = read_answer(wire)
    assert (answer.status, answer.code) == (408, "REQUEST_TIMEOUT")


def test_a_steady_upload_may_take_longer_than_the_timeout(serve_small: Any) -> None:
    rows = b"x,y\n" + b"1.5,0\n2.5,1\n" * 4_000
    with serve_small(body_timeout_s=0.3) as service:
        sent = time.monotonic()

        def parts() -> Iterator[bytes]:
            yield b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nslow\r\n'
            yield b'--b\r\nContent-Disposition: form-data; name="target"\r\n\r\ny\r\n'
            yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
            for i in range(0, len(rows), 8_000):
                # Faster than the least: 8 kB in a fifth of a second.
                wait_for(lambda at=sent + i / 40_000: time.monotonic() >= at)
                yield rows[i : i + 8_000]
            yield b"\r\n--b--\r\n"

        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        response = service.client.post("/v1/datasets", content=parts(), headers=kind)
        assert time.monotonic() - sent > 0.9
    assert response.status_code == 201, response.text


def test_a_shorter_body_than_announced_is_no_error_of_the_service(
    small: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    for path, kind in ((POST, JSON), ("/v1/datasets", "Content-Type: multipart/form-data; boundary=b")):
        with connected(small.url) as wire:
            wire.sendall(head("POST", path, kind, "Content-Length: 500") + b"{")
            wire.shutdown(socket.SHUT_WR)
            is_closed(wire)
    still_well(small)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_longer_body_than_announced_is_no_second_request(small: RunningService) -> None:
    smuggled = head("POST", "/v1/studies", JSON, "Content-Length: 0")
    with connected(small.url) as wire:
        wire.sendall(head("POST", "/v1/studies:validate", JSON, "Content-Length: 2") + b"{}x" + smuggled)
        assert read_answer(wire).status in (400, 422)
        assert is_closed(wire)


def test_a_length_beside_a_transfer_encoding_is_refused(small: RunningService) -> None:
    for lines in (
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Transfer-Encoding: gzip, chunked, identity",),
        ("Content-Length: -1",),
        ("Content-Length: 1e3",),
    ):
        with connected(small.url) as wire:
            wire.sendall(head("POST", POST, JSON, *lines) + b"0\r\n\r\n")
            answer = read_answer(wire)
            assert answer.status == 400, lines
            assert problem(answer)["code"] == "BAD_REQUEST"
            assert is_closed(wire)


def test_an_answer_before_the_body_ends_the_connection_in_good_order(small: RunningService) -> None:
    with connected(small.url) as wire:
        wire.sendall(head("POST", "/v1/nowhere", JSON, "Transfer-Encoding: chunked"))
        answer = read_answer(wire)
        assert (answer.status, answer.headers["connection"]) == (404, "close")
        wire.sendall(b"2\r\n{}\r\n0\r\n\r\n")
        assert is_closed(wire)


# -- forms ------------------------------------------------------------------------------------------------------------


def form(*parts: tuple[str, bytes]) -> dict[str, Any]:
    body = b"".join(b"--b\r\n%s\r\n\r\n%s\r\n" % (lines.encode(), content) for lines, content in parts) + b"--b--\r\n"
    return {"content": body, "headers": {"Content-Type": "multipart/form-data; boundary=b"}}


FILE = ('Content-Disposition: form-data; name="file"; filename="a.csv"', b"x,y\n1,0\n2,1\n")


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("many fields", [('Content-Disposition: form-data; name="drop"', b"x")] * 11_000),
        ("a long header", [(f"X-Long: {'x' * 100_000}\r\n{FILE[0]}", FILE[1])]),
        ("many headers", [("".join(f"X-{i}: 1\r\n" for i in range(1_000)) + FILE[0], FILE[1])]),
        ("a long name", [(f'Content-Disposition: form-data; name="{"x" * 100_000}"', b"")]),
        ("two files", [FILE, FILE]),
        ("a part without a name", [("Content-Type: text/plain", b"x")]),
        ("large fields", [(f'Content-Disposition: form-data; name="field{i}"', b"x" * 900_000) for i in range(3)]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_form_that_is_out_of_bounds_is_refused(serve_small: Any, what: str, parts: list[tuple[str, bytes]]) -> None:
    with serve_small(max_upload_bytes=20 * MB, body_timeout_s=20) as service:
        began = time.monotonic()
        response = service.client.post("/v1/datasets", **form(*parts))
        assert response.status_code in (400, 413), (what, response.text)
        assert response.headers["content-type"] == "application/problem+json"
        assert time.monotonic() - began < 10


def test_a_file_of_the_largest_size_is_read_and_a_larger_one_is_not(serve_small: Any) -> None:
    row = b"1.25,0\n2.25,1\n"
    with serve_small(max_upload_bytes=2 * MB, body_timeout_s=20) as service:
        name = ('Content-Disposition: form-data; name="name"', b"large")
        target = ('Content-Disposition: form-data; name="target"', b"y")
        fitting = b"x,y\n" + row * ((2 * MB - 4) // len(row))
        response = service.client.post("/v1/datasets", **form(name, target, (FILE[0], fitting)))
        assert response.status_code == 201, response.text
        response = service.client.post("/v1/datasets", **form(name, target, (FILE[0], fitting + row * 10)))
        assert (response.status_code, response.json()["code"]) == (413, "BODY_TOO_LARGE")


# -- heads ------------------------------------------------------------------------------------------------------------


def test_a_head_that_trickles_is_given_up(small: RunningService) -> None:
    with connected(small.url) as wire:
        wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        assert trickled(wire, b"X-More: 1\r\n") == b"HTTP/1.1 408"
        wire.settimeout(20)
        assert is_closed(wire)


def test_a_connection_that_says_nothing_is_closed(small: RunningService) -> None:
    with connected(small.url) as wire:
        assert wire.recv(1) == b""
    with connected(small.url) as wire:  # nor does it live on empty lines between requests
        wire.sendall(head("GET", "/healthz"))
        assert read_answer(wire).status == 200
        wire.sendall(b"\r\n")
        assert is_closed(wire)


def test_connections_that_hang_do_not_keep_others_out(small: RunningService) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            wire = stack.enter_context(connected(small.url))
            wire.sendall(b"POST /v1/studies HTTP/1.1\r\nHost: x\r\nX-Slow:")
        still_well(small)


@pytest.mark.parametrize(
    ("what", "request_head", "status", "code"),
    [
        ("a long path", head("GET", "/v1/studies?q=" + "x" * MAX_URL_BYTES), 414, "URI_TOO_LONG"),
        ("a large header", head("GET", "/healthz", "X-Big: " + "x" * MAX_HEADER_BYTES), 431, "HEADERS_TOO_LARGE"),
        ("many headers", head("GET", "/healthz", *["X: 1"] * MAX_HEADERS), 431, "HEADERS_TOO_LARGE"),
        ("a broken line", b"GET /healthz\r\n\r\n", 400, "BAD_REQUEST"),
        ("a broken header", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX Y: 1\r\n\r\n", 400, "BAD_REQUEST"),
        ("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "BAD_REQUEST"),
        ("a NUL", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", 400, "BAD_REQUEST"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_a_head_that_is_out_of_bounds_is_refused_as_a_problem(
    small: RunningService, what: str, request_head: bytes, status: int, code: str
) -> None:
    with connected(small.url) as wire:
        wire.sendall(request_head)
        answer = read_answer(wire)
        assert (answer.status, problem(answer)["code"]) == (status, code)
        assert is_closed(wire)


@pytest.mark.parametrize(
    "start",
    [
        b"GET /",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Endless: ",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
        b"POST /v1/studies HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;ext=",
        b"POST /v1/studies HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX-Trailer: ",
    ],
    ids=["path", "header", "names", "chunk extension", "trailer"],
)
def test_what_never_ends_is_cut_before_it_fills_the_memory(serve_small: Any, start: bytes) -> None:
    with serve_small(body_timeout_s=60, header_timeout_s=60) as service, connected(service.url) as wire:
        wire.settimeout(20)
        before = psutil.Process().memory_info().rss
        sent = 0
        piece = b"x" * 65_536
        with contextlib.suppress(ConnectionError):
            wire.sendall(start)
            while sent < 300 * MB:
                wire.sendall(piece)
                sent += len(piece)
        assert sent < 100 * MB
        assert psutil.Process().memory_info().rss - before < 40 * MB
        still_well(service)


def test_fields_of_a_trailer_are_none_of_the_requests_headers(small: RunningService) -> None:
    with connected(small.url) as wire:
        wire.sendall(head("POST", "/v1/studies:validate", JSON, "Transfer-Encoding: chunked"))
        wire.sendall(b"2\r\n{}\r\n0\r\nContent-Encoding: gzip\r\nIdempotency-Key: x\r\n\r\n")
        assert read_answer(wire).status == 422


def test_several_requests_at_once_on_one_connection_are_answered_in_turn(small: RunningService) -> None:
    with connected(small.url) as wire:
        wire.sendall(head("GET", "/healthz") * 20 + head("GET", "/v1/studies", "Connection: close"))
        received = b""
        while part := wire.recv(65_536):
            received += part
    assert received.count(b"HTTP/1.1 200 OK") == 21
