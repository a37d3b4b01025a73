"""The database's server is stopped under everything at once: nothing fails, no trial is charged, no client has a gap.

A server of the test's own is shut down in order, or crashes, and comes back: at once, after longer than every retry of
a transaction, and after longer than the leases. Meanwhile workers claim, train and record, clients stream, and others
send requests.
"""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from app.store.tables import Trial
from tests.crash.own_postgres import OwnPostgres, StopMode, own_postgres
from tests.store.conftest import Bench, bench_maker
from tests.support.processes import Fleet, fleet_on, over, wait_for
from tests.support.services import IS_FULL, ServiceProcess, service_on
from tests.support.streams import Follower, by_study, logged

pytestmark = pytest.mark.postgres

LONGER_THAN_RETRIES_S = 11.0
"""A transaction is tried again for about 8 s."""
SHORT_LEASE_S = 4.0


@pytest.fixture
def postgres() -> Iterator[OwnPostgres]:
    with own_postgres() as server:
        yield server


@pytest.fixture
def fleet(postgres: OwnPostgres, tmp_path: Path) -> Iterator[Fleet]:
    with fleet_on(postgres.database, tmp_path) as fleet:
        yield fleet


@pytest.fixture
def service(postgres: OwnPostgres, tmp_path: Path) -> Iterator[ServiceProcess]:
    with service_on(postgres.database, tmp_path) as service:
        yield service


@dataclass
class Visitor(threading.Thread):
    """Reads a study, and asks another for trials, again and again: each trial under one key until it is answered."""

    client: httpx.Client
    read: str
    asked: str
    answers: dict[int, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    trials: dict[str, int] = field(default_factory=dict)
    """The number of the trial that each key was answered with."""

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.leaving = threading.Event()

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        for count in itertools.count():
            for path in (f"/v1/studies/{self.read}", f"/v1/studies/{self.read}/trials", "/v1/workers"):
                self._note(self.client.get(path))
            key = f"{self.name}-{count}"
            while key not in self.trials:
                path, body = f"/v1/studies/{self.asked}/trials", {"hyperparameters": {"x0": 0.5}}
                response = self.client.post(path, json=body, headers={"Idempotency-Key": key})
                self._note(response)
                if response.status_code == 201:
                    self.trials[key] = response.json()["number"]
                elif self.leaving.is_set():
                    return
            if self.leaving.wait(0.02):
                return

    def _note(self, response: httpx.Response) -> None:
        status = response.status_code
        self.answers[status] = self.answers.get(status, 0) + 1
        is_passing = status == 503 and "retry-after" in response.headers and "problem+json" in str(response.headers)
        in_flight = status == 409 and response.json()["code"] == "REQUEST_IN_FLIGHT"
        if status not in (200, 201) and not is_passing and not in_flight:
            self.problems.append(f"{status} {response.text}")


def studies(postgres: OwnPostgres, trials: int, **changes: Any) -> tuple[Bench, Bench]:
    """One that workers train, and one that waits for a worker that there is not."""
    make = bench_maker(postgres.database)
    x0 = {"type": "float", "low": -1.0, "high": 1.0}
    trained = make(
        name="trained",
        hyperparameters={"x0": x0, "delay_seconds": 0.05},
        training={"epochs": 4, "select_epoch": "last"},
        sampler={"name": "random"},
        budget={"trials": trials},
        **changes,
    )
    execution = {"worker_labels": {"nobody": "here"}}
    return trained, make(name="asked", execution=execution, budget={"trials": 100_000})


def outage(postgres: OwnPostgres, mode: StopMode, seconds: float) -> None:
    postgres.stop(mode)
    time.sleep(seconds)  # the length of the outage
    postgres.start()


@pytest.mark.parametrize(
    ("stops", "seconds", "lease_ttl_s", "trials"),
    [
        pytest.param(["fast", "immediate"] * (2 if IS_FULL else 1), 0.0, 30.0, 400 if IS_FULL else 200, id="restarts"),
        pytest.param(
            ["immediate"],
            LONGER_THAN_RETRIES_S,
            30.0,
            150,
            id="longer-than-the-retries",
            marks=pytest.mark.skipif(not IS_FULL, reason="the next one is harder"),
        ),
        pytest.param(["fast"], LONGER_THAN_RETRIES_S, SHORT_LEASE_S, 150, id="longer-than-the-lease"),
    ],
)
def test_an_outage_of_the_database_costs_no_trial_and_no_event(
    postgres: OwnPostgres,
    service: ServiceProcess,
    fleet: Fleet,
    stops: list[StopMode],
    seconds: float,
    lease_ttl_s: float,
    trials: int,
) -> None:
    bench, asked = studies(postgres, trials, execution={"parallel_trials": 12})
    workers = [fleet.start(lease_ttl_s=lease_ttl_s) for _ in range(2)]
    followers = [Follower(service.url, f"/v1/studies/{bench.public_id}/events", {bench.public_id}) for _ in range(3)]
    followers.append(Follower(service.url, "/v1/events", {bench.public_id}))
    with service.client() as client:
        visitors = [Visitor(client, bench.public_id, asked.public_id) for _ in range(2)]
        for thread in [*followers, *visitors]:
            thread.start()
        for number, mode in enumerate(stops):
            done = trials * (number + 1) // (len(stops) + 2)
            wait_for(lambda done=done: bench.study().complete >= done, 60, f"{done} finished trials")
            outage(postgres, mode, seconds)
        assert over(bench, 90) == "COMPLETED"
        for visitor in visitors:
            visitor.leaving.set()
        for thread in [*followers, *visitors]:
            thread.join(60)
            assert not thread.is_alive(), thread
    assert service.is_running()
    assert [worker.process.poll() for worker in workers] == [None, None]
    assert [(t.state, t.attempt, t.charged) for t in bench.trials()] == [("COMPLETE", 1, 0)] * trials
    bench.check()
    asked.check()

    log = logged(postgres.database)
    for follower in followers:
        assert follower.problems == []
        seen = by_study(follower.seen)
        assert seen.keys() <= log.keys()
        assert seen[bench.public_id] == log[bench.public_id]
        for public_id, events in seen.items():
            assert events == log[public_id][: len(events)]
    assert [visitor.problems for visitor in visitors] == [[], []]
    answered = [number for visitor in visitors for number in visitor.trials.values()]
    assert len(answered) == len(set(answered)) > 0
    with postgres.database.read() as session:
        query = select(func.count()).where(Trial.study_id == asked.study_id, Trial.number.not_in(answered))
        # One that a visitor was still waiting for when it left.
        assert session.scalar(query) <= len(visitors)
    assert "Traceback" not in service.log()
    assert "Traceback" not in "".join(worker.log() for worker in workers)


def test_a_worker_asked_to_stop_while_the_database_is_away_leaves_and_its_trials_go_on(
    postgres: OwnPostgres, fleet: Fleet
) -> None:
    bench, _ = studies(postgres, 40, execution={"parallel_trials": 8})
    worker = fleet.start(lease_ttl_s=SHORT_LEASE_S)
    wait_for(lambda: bench.study().complete >= 2, 60, "finished trials")
    postgres.stop("fast")
    worker.signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert "Traceback" not in worker.log()
    postgres.start()
    fleet.start(lease_ttl_s=SHORT_LEASE_S)
    assert over(bench, 90) == "COMPLETED"
    assert {(t.state, t.charged <= 1) for t in bench.trials()} == {("COMPLETE", True)}
    bench.check()
