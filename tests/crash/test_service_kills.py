"""The API process is killed in the middle of a request, and in the middle of streams: clients ask again, and go on."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, text

from app.store import lifecycle
from app.store.engine import Database
from app.store.tables import IdempotencyKey, Study
from tests.store.conftest import Bench
from tests.support.processes import Fleet, fleet_on, over, wait_for
from tests.support.services import IS_FULL, ServiceProcess, service_on
from tests.support.streams import Follower, by_study, logged

TOGETHER = 3
"""Requests with the same key that are in flight when the process is killed."""


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[ServiceProcess]:
    with service_on(database, tmp_path) as service:
        yield service


def definition(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "model": {"family": "function"},
        "hyperparameters": {"x0": {"type": "float", "low": -1.0, "high": 1.0}},
        "objectives": [{"metric": "value"}],
        "budget": {"trials": 3},
        "execution": {"worker_labels": {"nobody": "here"}},
    }


def post(service: ServiceProcess, name: str) -> httpx.Response:
    with service.client() as client:
        return client.post("/v1/studies", json=definition(name), headers={"Idempotency-Key": f"key-of-{name}"})


def posting(service: ServiceProcess, name: str) -> tuple[list[threading.Thread], list[httpx.Response]]:
    """Requests with one key, sent side by side, and the answers that come."""
    answers: list[httpx.Response] = []

    def send() -> None:
        with contextlib.suppress(httpx.TransportError):
            answers.append(post(service, name))

    threads = [threading.Thread(target=send) for _ in range(TOGETHER)]
    for thread in threads:
        thread.start()
    return threads, answers


def created_once(service: ServiceProcess, database: Database, name: str, before: list[httpx.Response]) -> None:
    """The same request is answered now, with the one study that there is, whoever had an answer before."""

    def answered() -> httpx.Response | None:
        response = post(service, name)
        if response.status_code == 409 and response.json()["code"] == "REQUEST_IN_FLIGHT":
            return None  # the killed process's transaction: the server ends it once it misses its client
        assert response.status_code == 201, response.text
        return response

    first = wait_for(answered, 15, "an answer that is not 'in flight'")
    assert post(service, name).json() == first.json()
    for response in before:
        assert response.status_code in (201, 409)
        if response.status_code == 201:
            assert response.json()["id"] == first.json()["id"]
        else:
            assert response.json()["code"] == "REQUEST_IN_FLIGHT"
    with database.read() as session:
        assert session.scalar(select(func.count()).where(Study.name == name)) == 1
        (status,) = session.scalars(select(IdempotencyKey.status).where(IdempotencyKey.key == f"key-of-{name}"))
        assert status == 201
    assert [event["type"] for event in logged(database)[first.json()["id"]]] == ["study.created"]


@contextlib.contextmanager
def studies_locked(database: Database) -> Iterator[Callable[[], bool]]:
    """Nobody can add a study in this block; gives whether somebody waits for it in the middle of a transaction."""
    with database.engine.connect() as connection:  # on SQLite its BEGIN IMMEDIATE is the lock
        if database.is_sqlite:
            connection.execute(text("SELECT 1"))
            yield lambda: True
            return
        connection.execute(text("LOCK TABLE fettle_studies IN EXCLUSIVE MODE"))
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'fettle_studies'::regclass")
        yield lambda: bool(connection.scalar(waiting))


@pytest.mark.smoke
def test_a_request_killed_while_it_waits_is_answered_once_afterwards(
    service: ServiceProcess, database: Database
) -> None:
    """On PostgreSQL its transaction has claimed the key and waits for the table; on SQLite it waits for the file."""
    with studies_locked(database) as is_waited_for:
        threads, answers = posting(service, "waiting")
        wait_for(is_waited_for, 15, "a transaction that waits")
        # The other two are told at once that the first one is in flight, so that this one is being served.
        wait_for(lambda: len(answers) == TOGETHER - 1, 15, "the answers to the others")
        assert {answer.json()["code"] for answer in answers} == {"REQUEST_IN_FLIGHT"}
        service.kill()
        for thread in threads:
            thread.join()
    assert len(answers) == TOGETHER - 1
    service.start()
    created_once(service, database, "waiting", answers)


def test_requests_killed_at_random_moments_are_answered_once_afterwards(
    service: ServiceProcess, database: Database
) -> None:
    for turn in range(5 if IS_FULL else 2):
        post(service, f"warm-{turn}")
        name = f"random-{turn}"
        threads, answers = posting(service, name)
        threading.Event().wait(random.uniform(0.0, 0.05))  # the moment of the kill: before, within, after
        service.kill()
        for thread in threads:
            thread.join()
        service.start()
        created_once(service, database, name, answers)


@pytest.fixture
def fleet(database: Database, tmp_path: Path) -> Iterator[Fleet]:
    with fleet_on(database, tmp_path) as fleet:
        yield fleet


@pytest.mark.smoke
def test_streams_of_a_killed_service_go_on_with_the_next_one(
    service: ServiceProcess, database: Database, fleet: Fleet, make_study: Callable[..., Bench]
) -> None:
    kills = 3 if IS_FULL else 2
    bench = make_study(trials=100_000, epochs=4, delay_seconds=0.05, execution={"parallel_trials": 4})
    path = f"/v1/studies/{bench.public_id}/events"
    followers = [Follower(service.url, path, {bench.public_id}) for _ in range(4)]
    followers += [Follower(service.url, "/v1/events", {bench.public_id}) for _ in range(2)]
    for follower in followers:
        follower.start()
    fleet.start()
    for _ in range(kills):
        wanted = [len(follower.seen) + 40 for follower in followers]
        wait_for(
            lambda wanted=wanted: all(len(f.seen) >= n for f, n in zip(followers, wanted, strict=True)), 60, "news"
        )
        service.kill()
        service.start()
    bench.act(lifecycle.stop)
    assert over(bench) == "STOPPED"
    log = logged(database)
    for follower in followers:
        follower.join(60)
        assert follower.is_done
        assert follower.problems == []
        assert follower.broken >= kills
        assert by_study(follower.seen) == {bench.public_id: log[bench.public_id]}
    bench.check()
