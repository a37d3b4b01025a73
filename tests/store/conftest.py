"""A study on a fresh database, and short ways to run its trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import func, select, update

from app.domain.json import loads
from app.domain.study import StudyDefinition
from app.domain.trial import FailureReason, Outcome, Proposal, Reservation, TrialState
from app.store import leases, lifecycle, recording
from app.store.engine import Database
from app.store.tables import Event, Metric, Study, Trial

TTL_S = 30.0


def definition(**changes: Any) -> StudyDefinition:
    """A study of the family `function` with five trials; `changes` replace whole sections."""
    body: dict[str, Any] = {
        "name": "sphere",
        "model": {"family": "function"},
        "hyperparameters": {"x0": {"type": "float", "low": -1.0, "high": 1.0}},
        "objectives": [{"metric": "value", "direction": "minimize"}],
        "budget": {"trials": 5},
    }
    return StudyDefinition.model_validate(body | changes)


@dataclass
class Bench:
    """A study and its database: each method is one transaction, as a worker would do it."""

    database: Database
    study_id: int
    public_id: str

    def reserve(self, count: int = 1, worker: str = "w1", ttl_s: float = TTL_S) -> list[Reservation]:
        with self.database.write() as session:
            return leases.reserve(session, self.study_id, worker, count, ttl_s)

    def start(self, reservations: Sequence[Reservation], worker: str = "w1", ttl_s: float = TTL_S) -> set[int]:
        proposals = [
            Proposal(r, r.hyperparameters or {"x0": r.number / 10}, r.sampled or {"x0": r.number / 10}, {})
            for r in reservations
        ]
        with self.database.write() as session:
            return leases.start(session, self.study_id, proposals, worker, "cpu", ttl_s)

    def running(self, count: int = 1, worker: str = "w1", ttl_s: float = TTL_S) -> list[Reservation]:
        reservations = self.reserve(count, worker, ttl_s)
        assert self.start(reservations, worker, ttl_s) == {r.trial_id for r in reservations}
        return reservations

    def report(self, reservation: Reservation, epoch: int, value: float) -> recording.Report:
        r = reservation
        return recording.Report(r.trial_id, r.token, r.number, r.attempt, epoch, {"value": value})

    def record(self, *reports: recording.Report) -> set[int]:
        with self.database.write() as session:
            return recording.record(session, self.study_id, self.public_id, reports, TTL_S)

    def finish(self, reservation: Reservation, value: float = 0.5, **changes: Any) -> set[int]:
        with self.database.write() as session:
            outcome = complete(reservation, value, **changes)
            return recording.finish(session, self.study_id, [outcome], [], TTL_S).trial_ids

    def fail(self, reservation: Reservation, reason: FailureReason = FailureReason.EXCEPTION) -> set[int]:
        outcome = Outcome(reservation.trial_id, reservation.token, TrialState.FAIL, reason=reason, log="boom\n")
        with self.database.write() as session:
            return recording.finish(session, self.study_id, [outcome], [], TTL_S).trial_ids

    def expire(self, *reservations: Reservation) -> None:
        """Move leases' ends into the past, as time would."""
        with self.database.write() as session:
            ids = [r.trial_id for r in reservations]
            session.execute(update(Trial).where(Trial.id.in_(ids)).values(lease_expires_at=1.0))

    def reap(self) -> int:
        with self.database.write() as session:
            return leases.reap(session, self.study_id)

    def act(self, action: Callable[..., Any], *arguments: Any) -> Any:
        with self.database.write() as session:
            return action(session, self.study_id, *arguments)

    def study(self) -> Study:
        with self.database.read() as session:
            return session.get_one(Study, self.study_id)

    def trial(self, number: int) -> Trial:
        with self.database.read() as session:
            return session.scalars(select(Trial).where(Trial.study_id == self.study_id, Trial.number == number)).one()

    def trials(self) -> list[Trial]:
        with self.database.read() as session:
            return list(session.scalars(select(Trial).where(Trial.study_id == self.study_id).order_by(Trial.number)))

    def metrics(self, trial_id: int) -> list[tuple[int, int]]:
        with self.database.read() as session:
            rows = session.execute(select(Metric.attempt, Metric.epoch).where(Metric.trial_id == trial_id))
            return sorted((row.attempt, row.epoch) for row in rows)

    def events(self) -> list[dict[str, Any]]:
        with self.database.read() as session:
            query = select(Event.data).where(Event.study_id == self.study_id).order_by(Event.seq)
            return [loads(data) for data in session.scalars(query)]

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events()]

    def check(self) -> None:
        """The counters say what the rows say; numbers of trials and events have no gap."""
        study, trials = self.study(), self.trials()
        states = [t.state for t in trials]
        counted = (study.waiting, study.running, study.complete, study.pruned, study.fail)
        assert counted == tuple(states.count(s) for s in ("WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL"))
        assert study.leased == sum(t.lease_token is not None for t in trials)
        assert [t.number for t in trials] == list(range(study.next_number))
        ends = sorted(t.finish_seq for t in trials if t.finish_seq is not None)
        assert ends == list(range(1, study.finished_count + 1))
        with self.database.read() as session:
            query = select(func.count(), func.min(Event.seq), func.max(Event.seq)).where(
                Event.study_id == self.study_id
            )
            count, first, last = session.execute(query).one()
        assert (first, last) == (1, count)


def complete(reservation: Reservation, value: float = 0.5, **changes: Any) -> Outcome:
    """A COMPLETE outcome with one objective's value."""
    fields: dict[str, Any] = {"values": (value,), "metrics": {"value": value}, "selected_epoch": 0, "epochs": 1}
    return Outcome(reservation.trial_id, reservation.token, TrialState.COMPLETE, **(fields | changes))


@pytest.fixture
def make_bench(database: Database) -> Callable[..., Bench]:
    """Makes studies on one database; `changes` go to `definition`."""
    return bench_maker(database)


@pytest.fixture
def make_sqlite_bench(sqlite_database: Database) -> Callable[..., Bench]:
    """As `make_bench`, on SQLite alone."""
    return bench_maker(sqlite_database)


def bench_maker(database: Database) -> Callable[..., Bench]:
    """Makes studies on a database."""

    def make(sample_limit: int | None = None, **changes: Any) -> Bench:
        with database.write() as session:
            study = lifecycle.create_study(
                session, definition(**changes), project="default", created_by=None, sample_limit=sample_limit
            )
            return Bench(database, study.id, study.public_id)

    return make


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """A study with a budget of five trials."""
    return make_bench()
