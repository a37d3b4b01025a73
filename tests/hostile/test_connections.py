"""Connections that are many, silent or never read: they end, and those with keys are served all the while."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

import httpx
import psutil
import pytest

from app.api.connections import MAX_PIPELINED
from app.api.sockets import Sockets, most_connections, most_streams
from app.settings import Settings
from app.store.engine import Database
from tests.hostile.wires import DOCUMENT, crowd, deaf, descriptors, held_by, key_on, own_address
from tests.integration.conftest import serving
from tests.integration.stream_clients import append
from tests.integration.wire import connected, head, problem, read_answer
from tests.support.processes import wait_for
from tests.support.services import service_on

MB = 2**20


def address_of(url: str) -> tuple[str, int]:
    parsed = httpx.URL(url)
    return parsed.host, parsed.port or 0


@pytest.mark.thorough
def test_answers_that_nobody_reads_take_neither_the_descriptors_nor_the_service(
    sqlite_database: Database, tmp_path: Path
) -> None:
    """More clients than the process has descriptors ask for a large page and read nothing; they bring no key."""
    key = key_on(sqlite_database, tmp_path)
    with contextlib.ExitStack() as stack:
        with descriptors(256):
            service = stack.enter_context(service_on(sqlite_database, tmp_path, write_timeout_s=2))
        assert service.process is not None
        with crowd(("127.0.0.1", service.port), 400, DOCUMENT) as clients:
            for _ in range(5):
                assert httpx.get(f"{service.url}/v1/studies", headers=key, timeout=20).status_code == 200
                assert psutil.Process(service.process.pid).num_fds() < 256
            wait_for(lambda: held_by(service) == 0, 30, "the end of all that nobody reads")
            assert len(clients) == 400
        assert "Too many open files" not in service.log()
        assert "Traceback" not in service.log()
        assert "cut" in service.log()


def test_silent_connections_make_room_for_those_with_keys(sqlite_database: Database, tmp_path: Path) -> None:
    key = key_on(sqlite_database, tmp_path)
    with service_on(sqlite_database, tmp_path, max_connections=20, header_timeout_s=600) as service:
        place = ("127.0.0.1", service.port)
        for request in (b"", b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nX-Slow: ", head("GET", "/v1/studies")):
            with crowd(place, 60, request):
                for _ in range(10):
                    assert httpx.get(f"{service.url}/v1/studies", headers=key, timeout=20).status_code == 200
                assert held_by(service) <= 20


def test_connections_that_are_served_are_not_cut_for_newcomers(sqlite_database: Database, tmp_path: Path) -> None:
    """Streams that are read stay; the newcomer is told why there is no place, and finds one when another leaves."""
    with serving(sqlite_database, tmp_path, max_connections=10, max_streams=100) as service:
        study = service.create()["id"]
        request = head("GET", f"/v1/studies/{study}/events")
        with contextlib.ExitStack() as stack:
            streams = []
            for _ in range(8):
                wire = stack.enter_context(connected(service.url))
                wire.sendall(request)
                assert wire.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
                streams.append(wire)
            refused = service.client.get(f"/v1/studies/{study}/events")
            assert refused.status_code == 429, "some places are no streams'"
            assert service.client.get("/v1/studies").status_code == 200
            with crowd(address_of(service.url), 30):
                for wire in streams:
                    wire.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        while wire.recv(65_536):
                            pass
                        raise AssertionError("a stream that was read has ended")


def test_who_finds_no_place_is_told_so(sqlite_database: Database, tmp_path: Path) -> None:
    with serving(sqlite_database, tmp_path, max_connections=2, body_timeout_s=60) as service:
        service.client.close()
        waiting = head("POST", "/v1/studies", "Content-Type: application/json", "Content-Length: 10")
        with crowd(address_of(service.url), 2, waiting):

            def refusal() -> dict[str, object] | None:
                with connected(service.url) as wire, contextlib.suppress(ConnectionError):
                    wire.settimeout(0.5)
                    answer = read_answer(wire)
                    assert answer.headers["retry-after"]
                    return problem(answer)
                return None

            def refused() -> dict[str, object] | None:
                with contextlib.suppress(TimeoutError, IndexError):
                    return refusal()
                return None

            found = wait_for(refused, 20, "a refusal")
            assert (found["status"], found["code"]) == (503, "UNREADY")


@pytest.mark.skipif(own_address() is None, reason="this machine has no address but loopback")
def test_one_address_has_a_part_of_the_places(sqlite_database: Database, tmp_path: Path) -> None:
    settings = {"host": "0.0.0.0", "allow_open": True, "max_connections_per_address": 10, "header_timeout_s": 600}
    with service_on(sqlite_database, tmp_path, **settings) as service:
        mine = own_address()
        assert mine is not None
        with crowd((mine, service.port), 40):
            # The newest of them have the places, so whoever shares the address with a crowd is served.
            assert httpx.get(f"http://{mine}:{service.port}/v1/studies", timeout=20).status_code == 200
            assert held_by(service) <= 10
        with crowd(("127.0.0.1", service.port), 40):
            wait_for(lambda: held_by(service) >= 40, 20, "all of this machine's own")


def test_a_stream_that_nobody_reads_is_cut_and_its_place_is_free(sqlite_database: Database, tmp_path: Path) -> None:
    with serving(sqlite_database, tmp_path, write_timeout_s=0.6, stream_ping_s=0.05, max_streams=3) as service:
        study = service.create()["id"]
        append(sqlite_database, study, 200, padding="x" * 50_000)
        gate = service.app.state.gate
        for request in (
            head("GET", f"/v1/studies/{study}/events"),
            head("GET", "/v1/events"),
            head("GET", f"/v1/studies/{study}/events?follow=false"),
        ):
            with crowd(address_of(service.url), 3, request) as clients:
                wait_for(lambda: gate.streams.taken == 3, 20, "three streams")
                wait_for(lambda: gate.streams.taken == 0, 20, "their end")
                assert all(is_cut(wire) for wire in clients)


def is_cut(wire: socket.socket) -> bool:
    """Whether the service has ended the connection without having sent everything."""
    received = b""
    try:
        while part := wire.recv(MB):
            received += part
    except ConnectionResetError:
        return True
    return not received.endswith(b"0\r\n\r\n")


def test_pings_alone_do_not_keep_a_stream_that_nobody_reads(sqlite_database: Database, tmp_path: Path) -> None:
    """What the client's kernel has no room for stays in ours: its own buffer never fills, and yet it is seen."""
    with serving(sqlite_database, tmp_path, write_timeout_s=1, stream_ping_s=0.05) as service:
        study = service.create()["id"]
        gate = service.app.state.gate
        with contextlib.closing(deaf(address_of(service.url), head("GET", f"/v1/studies/{study}/events"))):
            wait_for(lambda: gate.streams.taken == 1, 20, "the stream")
            append(sqlite_database, study, 1, padding="x" * 20_000)  # more than the client takes, and no more follows
            wait_for(lambda: gate.streams.taken == 0, 20, "its end")


@pytest.mark.thorough
def test_what_is_held_for_all_clients_together_has_a_limit(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that read nothing may wait for long, as long as there is memory for what they left lying."""
    monkeypatch.setattr("app.api.sockets.MAX_UNSENT_BYTES", 8 * MB)
    with serving(sqlite_database, tmp_path, write_timeout_s=600) as service:
        study = service.create()["id"]
        append(sqlite_database, study, 70, padding="x" * 50_000)  # less than a page may have
        path = f"/v1/studies/{study}/events?limit=70"
        request = head("GET", path, "Accept: application/json", "Connection: close")
        with crowd(address_of(service.url), 5, request) as clients:
            began = time.monotonic()
            cut = 0
            for wire in clients:  # read after they were looked at, so that those which are cut have been by then
                wait_for(lambda: time.monotonic() > began + 4, 20)
                cut += is_short(wire)
        assert 3 <= cut <= 4, "of five answers of 3.5 megabytes one or two have room"
        whole = service.client.get(path, headers={"Accept": "application/json"})
        assert len(whole.json()["items"]) == 70, "whoever reads gets everything"


def is_short(wire: socket.socket) -> bool:
    """Whether the answer ends before its length."""
    try:
        return len(read_answer(wire).body) < 3_450_000
    except ConnectionResetError:
        return True


@pytest.mark.thorough
def test_whoever_reads_slowly_and_steadily_gets_everything(sqlite_database: Database, tmp_path: Path) -> None:
    with serving(sqlite_database, tmp_path, write_timeout_s=0.6) as service:
        study = service.create()["id"]
        append(sqlite_database, study, 80, padding="x" * 50_000)
        url = f"/v1/studies/{study}/events?follow=false"
        with contextlib.closing(deaf(address_of(service.url), head("GET", url, "Connection: close"))) as wire:
            began, received = time.monotonic(), b""
            while part := wire.recv(65_536):
                received += part
                # 600 kB a second: the whole takes some ten times as long as a client may rest.
                due = began + len(received) / 600_000
                wait_for(lambda until=due: time.monotonic() >= until)
            assert time.monotonic() - began > 3
        assert received.count(b"\nid: ") + received.count(b"id: 1\n") >= 81
        assert received.endswith(b"0\r\n\r\n")


@pytest.mark.thorough
def test_requests_that_wait_for_earlier_answers_are_few(sqlite_database: Database, tmp_path: Path) -> None:
    """Whoever asks for thousands of answers at once and reads none fills no memory."""
    with serving(sqlite_database, tmp_path, write_timeout_s=60) as service:
        before = psutil.Process().memory_info().rss
        study = service.create()["id"]
        first = head("GET", f"/v1/studies/{study}/events")
        with connected(service.url) as wire:
            wire.settimeout(2)
            with contextlib.suppress(TimeoutError, ConnectionError):
                wire.sendall(first + head("GET", "/v1/studies") * 400_000)
            assert psutil.Process().memory_info().rss - before < 60 * MB
        with connected(service.url) as wire:
            with contextlib.suppress(ConnectionError):
                wire.sendall(head("GET", "/healthz") * 5_000)
            received = b""
            with contextlib.suppress(ConnectionError):
                while part := wire.recv(65_536):
                    received += part
        assert 0 < received.count(b"HTTP/1.1 200") <= MAX_PIPELINED + 1
        assert received.count(b"HTTP/1.1") == received.count(b"HTTP/1.1 200")
        assert httpx.get(f"{service.url}/healthz").status_code == 200


def test_the_places_are_fewer_than_the_descriptors() -> None:
    for limit, most in ((256, 128), (1_024, 768), (4_096, 3_840)):
        with descriptors(limit):
            assert most_connections(Settings()) == most
            assert most_connections(Settings(max_connections=100_000)) == most
            assert most_connections(Settings(max_connections=10)) == 10
            assert most_streams(Settings()) == min(2_000, most * 8 // 10)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        (None, None), ("127.0.0.1", None), ("::1", None), ("::ffff:127.0.0.1", None),
        ("192.0.2.9", None), ("2001:db8::9", None),
        ("198.51.100.7", "198.51.100.7"), ("::ffff:198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64"),
    ],
)  # fmt: skip
def test_connections_are_counted_by_address_but_for_those_of_proxies(address: str | None, network: str | None) -> None:
    """Behind a trusted proxy, or on this machine, there may be many clients."""
    assert Sockets(Settings(trusted_proxies="192.0.2.0/28,2001:db8::9"))._counted_as(address) == network
