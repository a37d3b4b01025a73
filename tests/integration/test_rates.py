"""How often and how much at once: budgets of callers, refused keys, open streams, and turns for what computes."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.rates import MAX_BUCKETS, Buckets, Rates, is_local, network_of
from app.errors import TooManyRequests
from app.settings import Settings
from app.store.engine import Database
from tests.integration.conftest import RunningService, serving
from tests.integration.past import past
from tests.integration.wire import connected, head, status_of
from tests.support.processes import wait_for

PROXY = {"trusted_proxies": "127.0.0.1"}
"""The tests' client is a proxy: it says which address a call comes from."""


def from_address(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


# -- buckets ----------------------------------------------------------------------------------------------------------


def test_a_bucket_lets_a_minutes_calls_through_at_once_and_then_fills_steadily() -> None:
    clock = Clock()
    buckets = Buckets(60, clock)
    assert [buckets.take("a")[0] for _ in range(61)] == [True] * 60 + [False]
    clock.now += 1.0
    assert [buckets.take("a")[0] for _ in range(2)] == [True, False]
    assert buckets.take("b")[0]
    clock.now += 3_600.0
    assert buckets.left("a") == 60


def test_many_callers_take_bounded_memory_and_those_seen_last_are_kept() -> None:
    buckets = Buckets(2, Clock())
    for number in range(MAX_BUCKETS + 500):
        buckets.take("steady")
        buckets.take(f"address {number}")
    assert len(buckets) == MAX_BUCKETS
    assert not buckets.take("steady")[0]


def test_threads_get_no_more_tokens_than_there_are() -> None:
    buckets = Buckets(1_000, Clock())
    taken: list[bool] = []
    threads = [
        threading.Thread(target=lambda: taken.extend([buckets.take("a")[0] for _ in range(500)])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 1_000


def test_refused_keys_make_their_address_wait_and_no_other() -> None:
    clock = Clock()
    rates = Rates(Settings(rate_failures_per_minute=6), clock)
    for _ in range(6):
        rates.check_failures("203.0.113.7")
        rates.failed("203.0.113.7")
    with pytest.raises(TooManyRequests) as refused:
        rates.check_failures("203.0.113.7")
    assert 1 <= refused.value.retry_after_s <= 10
    rates.check_failures("203.0.113.8")
    clock.now += refused.value.retry_after_s
    rates.check_failures("203.0.113.7")


def test_the_addresses_of_one_ipv6_network_count_as_one() -> None:
    assert network_of("2001:db8:1:2::5") == network_of("2001:db8:1:2:ffff::1") != network_of("2001:db8:1:3::5")
    assert network_of("::ffff:203.0.113.7") == network_of("203.0.113.7") == "203.0.113.7"
    assert network_of("fe80::1%eth0") == network_of("fe80::2")
    assert network_of("no address") == "unknown"
    assert [is_local(a) for a in (None, "127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", "x")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip


# -- budgets ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def limited(sqlite_database: Database, tmp_path: Path) -> Iterator[RunningService]:
    rates = {"rate_reads_per_minute": 5, "rate_writes_per_minute": 3, "rate_heavy_per_minute": 2}
    with serving(sqlite_database, tmp_path, **rates, **PROXY) as running:
        yield running


def test_a_budget_that_is_used_up_is_told_with_when_to_come_again(limited: RunningService) -> None:
    headers = from_address("203.0.113.7")
    answers = [limited.client.get("/v1/studies", headers=headers) for _ in range(6)]
    assert [a.status_code for a in answers] == [200] * 5 + [429]
    assert answers[0].headers["ratelimit-policy"] == '"reads";q=5;w=60'
    assert answers[0].headers["ratelimit"] == '"reads";r=4;t=12'
    assert answers[-1].json()["code"] == "TOO_MANY_REQUESTS"
    wait_s = int(answers[-1].headers["retry-after"])
    assert 1 <= wait_s <= 12
    assert answers[-1].headers["ratelimit"] == f'"reads";r=0;t={wait_s}'


def test_reads_writes_and_what_computes_have_budgets_of_their_own(limited: RunningService, study: Any) -> None:
    headers = from_address("203.0.113.7")

    def statuses(method: str, path: str, count: int, body: Any = None) -> list[int]:
        return [limited.client.request(method, path, json=body, headers=headers).status_code for _ in range(count)]

    assert statuses("POST", "/v1/studies:validate", 3, study()) == [200, 200, 429]
    assert statuses("GET", "/v1/studies/none/plots/history", 1) == [429]
    assert statuses("POST", "/v1/studies", 1, study()) == [429]
    assert statuses("POST", "/v1/webhooks", 3, {}) == [422, 422, 429]
    assert statuses("GET", "/v1/families", 6) == [200] * 5 + [429]
    assert statuses("GET", "/healthz", 20) == [200] * 20
    assert statuses("GET", "/metrics", 20) == [200] * 20


def test_one_address_does_not_use_up_anothers_budget(limited: RunningService) -> None:
    for _ in range(10):
        limited.client.get("/v1/studies", headers=from_address("203.0.113.7"))
    assert limited.client.get("/v1/studies", headers=from_address("203.0.113.8")).status_code == 200
    assert limited.client.get("/v1/studies", headers=from_address("203.0.113.7")).status_code == 429


def test_this_machine_is_not_limited_while_the_service_is_open(limited: RunningService) -> None:
    answers = [limited.client.get("/v1/studies") for _ in range(30)]
    assert {a.status_code for a in answers} == {200}
    assert "ratelimit" not in answers[0].headers


def test_a_client_cannot_name_its_own_address_where_no_proxy_is_trusted(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    with serving(sqlite_database, tmp_path, rate_reads_per_minute=1) as service:
        answers = [service.client.get("/v1/studies", headers=from_address("203.0.113.7")) for _ in range(3)]
        assert {a.status_code for a in answers} == {200}


def test_an_address_is_the_last_one_that_no_trusted_proxy_has(limited: RunningService) -> None:
    for forged in ("198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4", "198.51.100.5"):
        headers = from_address(f"{forged}, 203.0.113.7")
        assert limited.client.get("/v1/studies", headers=headers).status_code == 200
    assert limited.client.get("/v1/studies", headers=from_address("198.51.100.6, 203.0.113.7")).status_code == 429


# -- streams ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stream(service: RunningService, path: str, address: str) -> Iterator[socket.socket]:
    with connected(service.url) as wire:
        wire.sendall(head("GET", path, f"X-Forwarded-For: {address}"))
        yield wire


@pytest.fixture
def streaming(database: Database, tmp_path: Path) -> Iterator[RunningService]:
    with serving(database, tmp_path, max_streams=6, max_streams_per_key=2, **PROXY) as running:
        yield running


def open_streams(service: RunningService) -> int:
    return int(service.app.state.gate.streams.taken)


def test_one_caller_has_so_many_streams_and_all_callers_together_so_many(streaming: RunningService) -> None:
    study = streaming.create()
    paths = (f"/v1/studies/{study['id']}/events", "/v1/events")
    with contextlib.ExitStack() as stack:
        for address in ("203.0.113.1", "203.0.113.2"):
            for path in paths:
                assert status_of(stack.enter_context(stream(streaming, path, address))) == 200
        assert status_of(stack.enter_context(stream(streaming, paths[0], "203.0.113.1"))) == 429
        for _ in range(2):
            assert status_of(stack.enter_context(stream(streaming, paths[0], "127.0.0.1"))) == 200
        assert open_streams(streaming) == 6
        refused = streaming.client.get(paths[1], headers=from_address("203.0.113.3"))
        assert (refused.status_code, refused.json()["code"]) == (429, "TOO_MANY_REQUESTS")
        assert int(refused.headers["retry-after"]) >= 1
        page = streaming.client.get(paths[1], headers=from_address("203.0.113.3") | {"Accept": "application/json"})
        assert page.status_code == 200
    wait_for(lambda: open_streams(streaming) == 0, what="the streams' end")


def test_places_of_clients_that_left_are_free_at_once(streaming: RunningService) -> None:
    study = streaming.create()
    path = f"/v1/studies/{study['id']}/events"
    for number in range(60):
        with stream(streaming, path, "203.0.113.1") as wire:
            assert status_of(wire) == 200
            if number % 3 == 0:  # reset, not closed
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            elif number % 3 == 1:
                wire.shutdown(socket.SHUT_RDWR)
        wait_for(lambda: open_streams(streaming) == 0, what="the place of a client that left")


def test_clients_that_leave_before_their_answer_hold_no_place(streaming: RunningService) -> None:
    study = streaming.create()
    for _ in range(50):
        with stream(streaming, f"/v1/studies/{study['id']}/events", "203.0.113.1") as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_for(lambda: open_streams(streaming) == 0, what="free places")
    with stream(streaming, "/v1/events", "203.0.113.1") as wire:
        assert status_of(wire) == 200


def test_streams_that_end_by_themselves_give_their_places_back(streaming: RunningService) -> None:
    study = streaming.create()
    path = f"/v1/studies/{study['id']}/events?follow=false"
    for _ in range(20):
        answer = streaming.client.get(path, headers=from_address("203.0.113.1"))
        assert (answer.status_code, answer.text.count("event: ")) == (200, 1)
    assert streaming.client.post(f"/v1/studies/{study['id']}:cancel").status_code == 200
    for _ in range(20):
        answer = streaming.client.get(path, headers=from_address("203.0.113.1"))
        assert "study.finished" in answer.text
    wait_for(lambda: open_streams(streaming) == 0, what="free places")


# -- turns ------------------------------------------------------------------------------------------------------------


def past_trials(service: RunningService, study: dict[str, Any], count: int) -> None:
    """So many finished trials of a study, drawn from its space."""
    turns, names = random.Random(0), list(study["definition"]["hyperparameters"])
    trials = []
    for _ in range(count):
        sampled = {name: turns.uniform(-5, 5) for name in names if name.startswith("x")}
        value = sum(x * x for x in sampled.values())
        trials.append({"sampled": sampled, "values": [value], "metrics": {"value": value}, "curve": [value]})
    past(service.database, study["id"], trials)


@pytest.mark.slow
def test_exports_and_plots_of_one_client_leave_others_quick_answers(sqlite_database: Database, tmp_path: Path) -> None:
    with serving(sqlite_database, tmp_path) as service:
        created = service.create(
            hyperparameters={f"x{i}": {"type": "float", "low": -5.0, "high": 5.0} for i in range(6)},
            budget={"trials": 6_000},
        )
        past_trials(service, created, 2_000)
        base = f"/v1/studies/{created['id']}"
        done: list[int] = []

        def greedy(path: str) -> None:
            with httpx.Client(base_url=service.url, timeout=120) as client:
                done.append(client.get(f"{base}/{path}").status_code)

        paths = [f"export?format={('csv', 'json', 'parquet')[i % 3]}" for i in range(20)]
        # More than there are threads for simple calls.
        paths += [f"plots/slice?hyperparameter=x{i}&hyperparameter=x{j}" for i in range(6) for j in range(6) if i != j]
        paths += [f"plots/parallel?hyperparameter=x{i}" for i in range(6)] + ["importances", "report"]
        threads = [threading.Thread(target=greedy, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        waits: list[float] = []
        with httpx.Client(base_url=service.url, timeout=60) as client:
            while any(thread.is_alive() for thread in threads):
                for path in ("/healthz", base, f"{base}/trials?limit=5"):
                    began = time.monotonic()
                    assert client.get(path).status_code == 200
                    waits.append(time.monotonic() - began)
        for thread in threads:
            thread.join()
    waits.sort()
    print(f"{len(waits)} simple calls: median {waits[len(waits) // 2]:.3f} s, longest {waits[-1]:.3f} s")
    assert len(done) == len(paths)
    assert set(done) <= {200, 503}
    assert done.count(200) >= 20
    assert waits[len(waits) // 2] < 0.5
    assert waits[-1] < 5.0


def test_slow_readers_of_exports_keep_nobody_waiting(sqlite_database: Database, tmp_path: Path) -> None:
    with serving(sqlite_database, tmp_path) as service:
        created = service.create(budget={"trials": 6_000})
        past_trials(service, created, 5_000)
        export = f"/v1/studies/{created['id']}/export?format=json"
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                wire = stack.enter_context(socket.socket())
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                wire.connect(("127.0.0.1", httpx.URL(service.url).port))
                wire.sendall(head("GET", export))
                assert status_of(wire) == 200
            answer = service.client.get(export)
        assert (answer.status_code, len(answer.json()["items"])) == (200, 5_000)
