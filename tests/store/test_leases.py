"""Leases, fences and recording, each on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from app.domain.trial import FailureReason, TrialState
from app.store import leases, lifecycle, recording
from tests.store.conftest import TTL_S, Bench, complete

pytestmark = pytest.mark.usefixtures("database")


def test_a_trial_goes_from_reservation_to_result_and_ends_its_study(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"trials": 1})
    (reservation,) = bench.reserve()
    assert bench.trial(0).state == "WAITING"
    assert bench.start([reservation]) == {reservation.trial_id}
    assert bench.record(bench.report(reservation, 0, 2.0), bench.report(reservation, 1, 1.0)) == {reservation.trial_id}
    assert bench.finish(reservation, 1.0, epochs=2, curve=((0, 2.0), (1, 1.0))) == {reservation.trial_id}
    trial, study = bench.trial(0), bench.study()
    assert (trial.state, trial.value, trial.epochs, trial.attempt) == ("COMPLETE", 1.0, 2, 1)
    assert (study.state, study.best_number, study.best_value) == ("COMPLETED", 0, 1.0)
    assert bench.kinds() == [
        "study.created", "study.started", "trial.started", "trial.metrics", "trial.metrics", "trial.finished",
        "trial.best",
        "study.finished",
    ]  # fmt: skip
    last = bench.events()[-1]
    assert last["best"] == {"number": 0, "values": {"value": 1.0}}
    assert last["progress"]["complete"] == 1
    bench.check()


def test_no_reservation_goes_past_the_budget_or_the_parallel_cap(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"trials": 4}, execution={"parallel_trials": 3})
    first = bench.reserve(10)
    assert [r.number for r in first] == [0, 1, 2]
    assert bench.reserve(10, "w2") == []
    bench.start(first)
    bench.finish(first[0])
    assert [r.number for r in bench.reserve(10, "w2")] == [3]
    bench.finish(first[1])
    assert bench.reserve(10, "w2") == []
    bench.check()


def test_two_reservations_never_share_a_trial_or_a_token(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"trials": 40})
    taken: list[tuple[int, str]] = []
    errors: list[BaseException] = []

    def claim(worker: str) -> None:
        try:
            while found := bench.reserve(3, worker):
                taken.extend((r.number, r.token) for r in found)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=claim, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(number for number, _ in taken) == list(range(40))
    assert len({token for _, token in taken}) == 40
    bench.check()


def test_the_last_two_finishers_at_once_end_the_study_once(make_bench: Callable[..., Bench]) -> None:
    for _ in range(5):
        bench = make_bench(name=f"pair-{_}", budget={"trials": 2})
        pair = bench.running(2)
        barrier = threading.Barrier(2)

        def end(reservation: object, bench: Bench = bench, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            bench.finish(reservation)  # type: ignore[arg-type]

        threads = [threading.Thread(target=end, args=(r,)) for r in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bench.study().state == "COMPLETED"
        assert bench.kinds().count("study.finished") == 1
        bench.check()


def test_every_write_of_a_lost_lease_is_refused_and_leaves_no_trace(bench: Bench) -> None:
    (zombie,) = bench.running()
    bench.record(bench.report(zombie, 0, 3.0))
    bench.expire(zombie)
    assert bench.reap() == 1
    (heir,) = bench.running(worker="w2")
    assert (heir.number, heir.attempt, heir.hyperparameters) == (0, 2, {"x0": 0.0})
    before = bench.events()
    assert bench.record(bench.report(zombie, 1, 9.0)) == set()
    assert bench.finish(zombie, -9.0) == set()
    assert bench.fail(zombie) == set()
    assert bench.start([zombie]) == set()
    pair = [(zombie.trial_id, zombie.token)]
    assert bench.act(leases.release, pair, "RELEASED") == set()
    assert bench.act(leases.charge, pair, FailureReason.EXCEPTION, "X", "x") == set()
    with bench.database.write() as session:
        assert leases.renew(session, pair, TTL_S) == set()
        assert leases.standing(session, pair) == set()
    assert bench.events() == before
    assert bench.metrics(zombie.trial_id) == [(1, 0)]
    bench.finish(heir, 0.25)
    assert bench.trial(0).value == 0.25
    assert bench.trial(0).worker_id == "w2"
    bench.check()


def test_a_token_alone_opens_nothing_it_must_be_that_trials(bench: Bench) -> None:
    one, two = bench.running(2)
    with bench.database.write() as session:
        crossed = [complete(one), complete(two)]
        swapped = [
            type(crossed[0])(two.trial_id, one.token, TrialState.COMPLETE, values=(0.0,)),
            type(crossed[0])(one.trial_id, two.token, TrialState.COMPLETE, values=(0.0,)),
        ]
        assert recording.finish(session, bench.study_id, swapped, [], TTL_S).trial_ids == set()
    assert [t.state for t in bench.trials()] == ["RUNNING", "RUNNING"]


def test_a_stack_loses_only_the_member_whose_lease_is_lost(bench: Bench) -> None:
    members = bench.running(3)
    bench.expire(members[1])
    bench.reap()
    reports = [bench.report(m, 0, 1.0) for m in members]
    assert bench.record(*reports) == {members[0].trial_id, members[2].trial_id}
    with bench.database.write() as session:
        outcomes = [complete(m, 0.1 * i) for i, m in enumerate(members)]
        recorded = recording.finish(session, bench.study_id, outcomes, [], TTL_S)
    assert recorded.trial_ids == {members[0].trial_id, members[2].trial_id}
    assert [t.state for t in bench.trials()] == ["COMPLETE", "WAITING", "COMPLETE"]
    bench.check()


def test_a_finish_repeated_after_a_lost_commit_answer_changes_nothing(bench: Bench) -> None:
    (reservation,) = bench.running()
    assert bench.finish(reservation, 0.5) == {reservation.trial_id}
    before = bench.events()
    assert bench.finish(reservation, 0.5) == {reservation.trial_id}
    assert bench.events() == before
    assert bench.study().complete == 1


def test_expired_attempts_are_retried_until_the_last_which_is_lost(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"trials": 1}, execution={"max_attempts": 2})
    for attempt in (1, 2):
        (reservation,) = bench.running()
        assert reservation.attempt == attempt
        bench.expire(reservation)
        assert bench.reap() == 1
    trial = bench.trial(0)
    assert (trial.state, trial.reason, trial.error_code) == ("FAIL", "LOST", "LEASE_EXPIRED")
    assert bench.kinds().count("trial.retried") == 1
    assert bench.study().state == "COMPLETED"
    bench.check()


def test_an_expired_reservation_that_never_started_is_free_again_uncharged(bench: Bench) -> None:
    (reservation,) = bench.reserve()
    bench.expire(reservation)
    assert bench.reap() == 1
    (again,) = bench.reserve(worker="w2")
    assert (again.number, again.attempt, again.hyperparameters) == (0, 1, None)
    assert bench.trial(0).charged == 0
    assert "trial.retried" not in bench.kinds()


def test_a_lease_that_is_renewed_or_reports_does_not_expire(bench: Bench) -> None:
    renewed, reporting = bench.running(2)
    bench.expire(renewed, reporting)
    with bench.database.write() as session:
        assert leases.renew(session, [(renewed.trial_id, renewed.token)], TTL_S) == {renewed.trial_id}
    bench.record(bench.report(reporting, 0, 1.0))
    assert bench.reap() == 0


def test_trials_given_back_come_first_then_enqueued_then_new(bench: Bench) -> None:
    (first,) = bench.running()
    bench.act(lifecycle.enqueue, {"x0": 0.75})
    bench.act(leases.release, [(first.trial_id, first.token)], "RELEASED")
    found = bench.reserve(3)
    assert [(r.number, r.attempt, r.requested) for r in found] == [(0, 2, None), (1, 1, {"x0": 0.75}), (2, 1, None)]
    assert bench.trial(0).charged == 0
    bench.check()


def test_a_crash_is_charged_and_the_last_attempt_fails_with_its_reason(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(execution={"max_attempts": 2})
    for _ in range(2):
        (reservation,) = bench.running()
        pair = [(reservation.trial_id, reservation.token)]
        bench.act(leases.charge, pair, FailureReason.EXCEPTION, "TRAINER_CRASHED", "segfault")
    trial = bench.trial(0)
    assert (trial.state, trial.reason, trial.error_code) == ("FAIL", "EXCEPTION", "TRAINER_CRASHED")
    bench.check()


def test_a_metric_that_is_not_finite_survives_both_databases(bench: Bench) -> None:
    (reservation,) = bench.running()
    bench.record(bench.report(reservation, 0, float("nan")), bench.report(reservation, 1, float("-inf")))
    told = [e["metrics"]["value"] for e in bench.events() if e["type"] == "trial.metrics"]
    assert told == ["NaN", "-Infinity"]
