"""Whatever workers and users do in whatever order, the store and `ModelStudy` agree: rows, counters, answers, events.

One study an example, on one database for all of them. Every write is tried with leases that stand and with those that
were lost, given back or taken over; `FETTLE_TEST_EXAMPLES=50` tries fifty times as many examples, others each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from sqlalchemy import update

from app.domain.study import StudyDefinition
from app.domain.trial import CheckpointPointer, FailureReason, Proposal, Reservation
from app.store import checkpoints, leases, lifecycle, recording, turnover
from app.store.engine import Database
from app.store.tables import Study
from tests.store.conftest import TTL_S
from tests.store.lease_machine import LIMITS, REASONS, REQUESTED, StudyBesideModel, budget
from tests.store.lease_model import OVER, Limits
from tests.support.effort import searching

WORKERS = st.sampled_from(["w1", "w2"])
COUNTS = st.integers(1, 4) | st.just(11)
DECISIONS = ("pause", "resume", "enqueue", "enqueue", "cancel a trial", "rebudget", "rebudget", "wait", "reap")


class Leases(StudyBesideModel):
    """What workers and users do."""

    # -- leases -------------------------------------------------------------------------------------------------------

    @rule(count=COUNTS, worker=WORKERS)
    def reserve(self, count: int, worker: str) -> None:
        self.was_given(self.bench.reserve(count, worker), self.model.reserve(count))

    def begin(self, data: st.DataObject, count: int) -> None:
        self.reserve_and_start(data, count, "w1")

    @rule(data=st.data(), count=COUNTS, worker=WORKERS)
    def reserve_and_start(self, data: st.DataObject, count: int, worker: str) -> None:
        before = len(self.given)
        self.was_given(self.bench.reserve(count, worker), self.model.reserve(count))
        self.start_all(self.proposals(data, self.given[: len(self.given) - before]), worker)

    @rule(data=st.data(), count=COUNTS, worker=WORKERS)
    def work(self, data: st.DataObject, count: int, worker: str) -> None:
        self.reserve_and_start(data, count, worker)
        self.record(data)
        self.finish(data, "and reserve", count, worker)

    def start_all(self, made: list[Proposal], worker: str) -> None:
        started = self.bench.act(leases.start, made, worker, "cpu", TTL_S)
        assert self.numbers(started) == self.model.start(made)

    @precondition(lambda self: self.given)
    @rule(data=st.data(), worker=WORKERS)
    def start(self, data: st.DataObject, worker: str) -> None:
        self.start_all(self.proposals(data), worker)

    @precondition(lambda self: self.given)
    @rule(data=st.data(), how=st.sampled_from([leases.renew, leases.promise]))
    def renew(self, data: st.DataObject, how: Callable[..., Any]) -> None:
        pairs = self.some(data)
        held = [(r.trial_id, r.token) for r in pairs]
        with self.database.read() as session:
            standing = leases.standing(session, held)
        with self.database.write() as session:
            assert set(how(session, held, TTL_S)) == standing
        expected = self.model.held((r.number, r.token) for r in pairs)
        for trial in expected:
            trial.expired = False
        assert self.numbers(standing) == {t.number for t in expected}

    @precondition(lambda self: self.given)
    @rule(data=st.data(), reaped=st.booleans())
    def expire(self, data: st.DataObject, reaped: bool) -> None:
        standing = self.model.held((r.number, r.token) for r in self.some(data))
        self.bench.expire(*(r for r in self.given if r.number in {t.number for t in standing}))
        for trial in standing:
            trial.expired = True
        if reaped:
            self.reap()

    def reap(self) -> None:
        lapsed = [t for t in self.model.trials if t.expired]
        assert self.bench.reap() == len(lapsed)
        self.model.end_attempts(lapsed, "LOST", FailureReason.LOST)

    @precondition(lambda self: self.given)
    @rule(data=st.data(), reason=REASONS, how=st.sampled_from(["release", "charge", "fail"]))
    def give_up(self, data: st.DataObject, reason: FailureReason, how: str) -> None:
        some = self.some(data)
        pairs = [(r.trial_id, r.token) for r in some]
        held = self.model.held((r.number, r.token) for r in some)
        expected = {t.number for t in held}
        if how == "release":
            done = self.bench.act(leases.release, pairs, "DRAINED")
            self.model.end_attempts(held, "DRAINED")
        elif how == "charge":
            done = self.bench.act(leases.charge, pairs, reason, "CRASHED", "It crashed.")
            self.model.end_attempts(held, reason, reason)
        else:
            done = self.bench.act(leases.fail, pairs, reason, "UNSAMPLED", "It could not be drawn.")
            self.model.end_failed(held, reason)
            self.model.settle()
        assert self.numbers(done) == expected

    # -- results ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def record(self, data: st.DataObject) -> None:
        reports, stored = self.reports(data), self.some(data, "RUNNING") if data.draw(st.booleans()) else []
        if not stored:
            assert self.numbers(self.bench.record(*self.as_reports(reports))) == self.model.record(reports)
            return
        written = [
            checkpoints.New(r.trial_id, r.token, r.attempt, CheckpointPointer(f"{r.token}/{len(self.given)}", 1, 10))
            for r in stored
        ]
        with self.database.write() as session:
            done, _ = turnover.record_and_checkpoint(
                session, self.bench.study_id, self.bench.public_id, written, self.as_reports(reports), TTL_S
            )
        held = self.model.held(((r.number, r.token) for r in stored), "RUNNING")
        assert self.numbers(done) == {t.number for t in held}
        self.model.record(reports)

    @precondition(lambda self: self.given)
    @rule(data=st.data(), how=st.sampled_from(["alone", "and reserve", "and start"]), count=COUNTS, worker=WORKERS)
    def finish(self, data: st.DataObject, how: str, count: int, worker: str) -> None:
        outcomes, reports = self.outcomes(data), self.reports(data)
        sent, told = [o for _, o in outcomes], self.as_reports(reports)
        if how == "alone":
            recorded = self.bench.act(recording.finish, sent, told, TTL_S)
            assert self.numbers(recorded.trial_ids) == self.model.finish(outcomes, reports)
        elif how == "and reserve":
            recorded, given = self.bench.act(turnover.finish_and_reserve, sent, told, count, worker, TTL_S)
            assert self.numbers(recorded.trial_ids) == self.model.finish(outcomes, reports)
            self.was_given(given, self.model.reserve(count, settled=True))
        else:
            made = self.proposals(data)
            recorded, started = self.bench.act(turnover.finish_and_start, sent, told, made, worker, "cpu", TTL_S)
            assert self.numbers(recorded.trial_ids) == self.model.finish(outcomes, reports)
            assert self.numbers(started) == self.model.start(made)

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def a_thief_writes_nothing(self, data: st.DataObject) -> None:
        some = self.some(data)
        tokens = [*(r.token for r in some[1:]), "stolen"]
        stolen = [replace(r, token=token) for r, token in zip(some, tokens, strict=True) if not self.knows(r, token)]
        pairs = [(r.trial_id, r.token) for r in stolen]
        outcomes = [self.outcome(data, r) for r in stolen]
        made = [Proposal(r, {"x0": 9.0}, {"x0": 9.0}, {}) for r in stolen]
        assert self.bench.act(leases.start, made, "thief", "cpu", TTL_S) == set()
        assert self.bench.record(*self.as_reports((r, 0) for r in stolen)) == set()
        assert self.bench.act(leases.release, pairs, "DRAINED") == set()
        assert self.bench.act(recording.finish, outcomes, [], TTL_S).trial_ids == set()
        self.model.settle()

    def knows(self, r: Reservation, token: str) -> bool:
        """Whether the token is, or was to the end, that of the trial: of two leases one may be the later."""
        trial = self.model.trials[r.number]
        return token in (trial.token, trial.finish_token)

    # -- the study ----------------------------------------------------------------------------------------------------

    @rule(
        data=st.data(),
        what=st.sampled_from(
            ["pause", "resume", "enqueue", "enqueue", "cancel a trial", "rebudget", "rebudget", "wait", "reap"]
        ),
    )
    def decide(self, data: st.DataObject, what: str) -> None:
        if what in ("pause", "resume"):
            assert self.allowed(getattr(lifecycle, what)) == self.model.act(what)
        elif what == "enqueue":
            requested = data.draw(REQUESTED)
            assert self.allowed(lifecycle.enqueue, requested) == self.model.enqueue(requested)
        elif what == "cancel a trial" and self.model.trials:
            number = data.draw(st.integers(0, len(self.model.trials) - 1))
            assert self.allowed(lifecycle.cancel_trial, number) == self.model.cancel_trial(number)
        elif what == "rebudget":
            self.rebudget(data.draw(LIMITS))
        elif what == "wait" and self.model.started:
            self.time_passes()
        elif what == "reap":
            self.reap()

    @precondition(lambda self: len(self.model.told) > 30 or self.model.state in OVER)
    @rule(action=st.sampled_from(["stop", "cancel"]))
    def end(self, action: str) -> None:
        assert self.allowed(getattr(lifecycle, action)) == self.model.act(action)

    def rebudget(self, limits: Limits) -> None:
        changed = StudyDefinition.model_validate(self.definition.model_dump() | {"budget": budget(limits)})
        done = self.allowed(lifecycle.update_study, changed)
        assert done == self.model.rebudget(limits)
        self.definition = changed if done else self.definition

    def time_passes(self) -> None:
        """A study lives in Unix time: a thousand seconds more are a beginning that is longer ago."""
        self.model.elapsed += 1000
        earlier = {"started_at": Study.started_at - 1000, "deadline_at": Study.deadline_at - 1000}
        with self.database.write() as session:
            session.execute(update(Study).where(Study.id == self.bench.study_id).values(earlier))


def test_the_store_does_what_the_model_says(database: Database) -> None:
    effort = searching(30, stateful_step_count=50)
    run_state_machine_as_test(lambda: Leases(database), settings=effort)
