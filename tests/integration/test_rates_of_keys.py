"""Budgets, open streams and refused keys where callers have keys: each key has its own, wherever it calls from."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.domain.access import Scope
from app.domain.keys import new_key
from app.store.engine import Database
from tests.integration.access import Made, make_key
from tests.integration.conftest import RunningService, function_study, serving
from tests.integration.wire import connected, head, read_answer, status_of
from tests.support.processes import wait_for

FAILURES = 4
READS = 5


def keys_of(service: RunningService) -> tuple[Made, Made]:
    """Two keys of one project, which both call from this machine."""
    return make_key(service, "one", list(Scope)), make_key(service, "two", list(Scope))


def get(service: RunningService, headers: dict[str, str], path: str = "/v1/studies") -> httpx.Response:
    return service.client.get(path, headers=headers)


def wrong() -> dict[str, str]:
    """A key that is well formed, and nobody's."""
    return {"Authorization": f"Bearer {new_key().text}"}


# -- budgets ----------------------------------------------------------------------------------------------------------


def test_a_key_that_used_its_budget_up_waits_and_another_of_the_same_client_does_not(
    sqlite_database: Database, tmp_path: Path
) -> None:
    limits = {"rate_reads_per_minute": READS, "rate_writes_per_minute": 2, "rate_heavy_per_minute": 3}
    with serving(sqlite_database, tmp_path, **limits) as service:
        one, two = keys_of(service)
        answers = [get(service, one.headers) for _ in range(READS + 1)]
        assert [a.status_code for a in answers] == [200] * READS + [429]
        assert answers[0].headers["ratelimit-policy"] == f'"reads";q={READS};w=60'
        assert answers[0].headers["ratelimit"] == f'"reads";r={READS - 1};t=12'
        refused = answers[-1]
        assert refused.json()["code"] == "TOO_MANY_REQUESTS"
        wait_s = int(refused.headers["retry-after"])
        assert 1 <= wait_s <= 12
        assert refused.headers["ratelimit-policy"] == f'"reads";q={READS};w=60'
        assert refused.headers["ratelimit"] == f'"reads";r=0;t={wait_s}'

        other = get(service, two.headers)
        assert (other.status_code, other.headers["ratelimit"]) == (200, f'"reads";r={READS - 1};t=12')

        def statuses(key: Made, path: str, count: int) -> list[int]:
            call = service.client.post
            return [call(path, json=function_study(), headers=key.headers).status_code for _ in range(count)]

        # Reads that are used up leave the key its writes, and each key has those for itself as well. A new study is
        # counted as a write and as what computes.
        assert statuses(one, "/v1/studies", 3) == [201, 409, 429]
        assert statuses(two, "/v1/studies", 3) == [409, 409, 429]
        assert statuses(one, "/v1/studies:validate", 2) == [200, 429]
        assert statuses(two, "/v1/studies:validate", 2) == [200, 429]
        assert get(service, {}).status_code == 401
        assert get(service, one.headers, "/healthz").status_code == 200


def test_a_key_has_one_budget_wherever_it_calls_from(sqlite_database: Database, tmp_path: Path) -> None:
    with serving(sqlite_database, tmp_path, rate_reads_per_minute=2, trusted_proxies="127.0.0.1") as service:
        one, two = keys_of(service)
        places = [{"X-Forwarded-For": f"203.0.113.{number}"} for number in range(3)]
        assert [get(service, one.headers | place).status_code for place in places] == [200, 200, 429]
        assert get(service, two.headers | places[0]).status_code == 200


def test_a_rotated_key_goes_on_with_its_budget(sqlite_database: Database, tmp_path: Path) -> None:
    with serving(sqlite_database, tmp_path, rate_reads_per_minute=1) as service:
        one, root = keys_of(service)
        assert [get(service, one.headers).status_code for _ in range(2)] == [200, 429]
        rotated = service.client.post(f"/v1/keys/{one.id}:rotate", headers=root.headers).json()
        assert get(service, {"Authorization": f"Bearer {rotated['key']}"}).status_code == 429
        assert get(service, one.headers).status_code == 401


# -- open streams -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stream(service: RunningService, key: Made) -> Iterator[socket.socket]:
    with connected(service.url) as wire:
        wire.sendall(head("GET", "/v1/events", f"Authorization: Bearer {key.text}", "Accept: text/event-stream"))
        yield wire


def test_open_streams_are_counted_for_each_key_and_places_of_who_leaves_are_free(
    database: Database, tmp_path: Path
) -> None:
    with serving(database, tmp_path, max_streams_per_key=2) as service:
        one, two = keys_of(service)

        def open_streams() -> int:
            return int(service.app.state.gate.streams.taken)

        with contextlib.ExitStack() as held:
            wires = [held.enter_context(stream(service, one)) for _ in range(2)]
            assert [status_of(wire) for wire in wires] == [200, 200]
            with stream(service, one) as wire:
                refused = read_answer(wire)
            assert (refused.status, refused.code) == (429, "TOO_MANY_REQUESTS")
            assert int(refused.headers["retry-after"]) >= 1
            assert get(service, one.headers).status_code == 200, "only its streams are too many"
            assert status_of(held.enter_context(stream(service, two))) == 200
            assert open_streams() == 3

            wires[0].shutdown(socket.SHUT_RDWR)
            wires[0].close()
            wait_for(lambda: open_streams() == 2, what="the place of the client that left")
            assert status_of(held.enter_context(stream(service, one))) == 200
            with stream(service, one) as wire:
                assert read_answer(wire).status == 429
        wait_for(lambda: open_streams() == 0, what="free places")


def test_a_revoked_keys_stream_gives_its_place_back(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.access.RECHECK_S", 0.05)
    with serving(sqlite_database, tmp_path, max_streams_per_key=1, max_streams=1, stream_ping_s=0.1) as service:
        one, two = keys_of(service)
        with stream(service, one) as wire:
            assert status_of(wire) == 200
            with stream(service, two) as late:
                assert read_answer(late).status == 429
            assert service.client.delete(f"/v1/keys/{one.id}", headers=two.headers).status_code == 204
            wait_for(lambda: service.app.state.gate.streams.taken == 0, what="the end of the revoked key's stream")
            with stream(service, two) as late:
                assert status_of(late) == 200


# -- refused keys -----------------------------------------------------------------------------------------------------


@pytest.fixture
def counting(database: Database, tmp_path: Path) -> Iterator[RunningService]:
    limits = {"rate_failures_per_minute": FAILURES, "trusted_proxies": "127.0.0.1"}
    with serving(database, tmp_path, **limits) as service:
        yield service


def test_too_many_wrong_keys_of_an_address_are_429_and_a_good_one_and_none_at_all_are_as_before(
    counting: RunningService,
) -> None:
    good, _ = keys_of(counting)
    here, there = {"X-Forwarded-For": "203.0.113.7"}, {"X-Forwarded-For": "203.0.113.8"}
    answers = [get(counting, wrong() | here) for _ in range(FAILURES + 2)]
    assert [a.status_code for a in answers] == [401] * FAILURES + [429] * 2
    assert answers[-1].json()["code"] == "TOO_MANY_REQUESTS"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60 / FAILURES
    # Whatever is asked for: nothing is said of what there is, and no route can be used to try on.
    for method, path in (("POST", "/v1/studies"), ("GET", "/v1/nowhere"), ("GET", "/v1/events")):
        assert counting.client.request(method, path, headers=wrong() | here).status_code == 429, path
    assert get(counting, {"Authorization": "Bearer garbage"} | here).status_code == 429

    for _ in range(FAILURES * 2):
        assert get(counting, good.headers | here).status_code == 200
        assert get(counting, here).status_code == 401, "no key is no try"
    assert get(counting, here, "/healthz").status_code == 200
    assert get(counting, wrong() | here).status_code == 429
    assert get(counting, wrong() | there).status_code == 401


def test_requests_without_a_key_and_with_good_ones_are_never_counted(counting: RunningService) -> None:
    good, _ = keys_of(counting)
    here = {"X-Forwarded-For": "203.0.113.7"}
    for _ in range(FAILURES * 3):
        assert get(counting, here).status_code == 401
        assert get(counting, good.headers | here).status_code == 200
    assert [get(counting, wrong() | here).status_code for _ in range(FAILURES + 1)] == [401] * FAILURES + [429]


def test_wrong_keys_from_this_machine_are_counted_too(counting: RunningService) -> None:
    good, _ = keys_of(counting)
    assert [get(counting, wrong()).status_code for _ in range(FAILURES + 1)] == [401] * FAILURES + [429]
    assert get(counting, good.headers).status_code == 200
