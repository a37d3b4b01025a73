"""Ends and beginnings in one transaction: what `finish`, then `reserve` or `start`, would do, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from app.domain.trial import ArtifactPointer, FailureReason, Outcome, Proposal, Reservation, TrialState
from app.errors import NotFound
from app.store import leases, lifecycle, recording, turnover
from app.store.trials import artifacts_of
from tests.store.conftest import TTL_S, Bench, complete


def finish_and_reserve(
    bench: Bench,
    outcomes: Sequence[Outcome],
    count: int = 1,
    reports: Sequence[recording.Report] = (),
    worker: str = "w1",
) -> tuple[set[int], list[Reservation]]:
    recorded, reservations = bench.act(turnover.finish_and_reserve, outcomes, reports, count, worker, TTL_S)
    return recorded.trial_ids, reservations


def finish_and_start(
    bench: Bench, outcomes: Sequence[Outcome], reservations: Sequence[Reservation]
) -> tuple[set[int], set[int]]:
    proposals = [Proposal(r, {"x0": r.number / 10}, {"x0": r.number / 10}, {}) for r in reservations]
    recorded, started = bench.act(turnover.finish_and_start, outcomes, [], proposals, "w1", "cpu", TTL_S)
    return recorded.trial_ids, started


def ids(reservations: Sequence[Reservation]) -> set[int]:
    return {r.trial_id for r in reservations}


def ended(reservation: Reservation, state: TrialState, reason: FailureReason | None = None) -> Outcome:
    return Outcome(reservation.trial_id, reservation.token, state, reason=reason)


def told(bench: Bench) -> list[dict[str, Any]]:
    """The events without what differs from one study to the next: times and the study's id."""
    timed = ("at", "study_id", "duration_seconds")
    return [{key: value for key, value in event.items() if key not in timed} for event in bench.events()]


def test_a_worker_that_trains_one_by_one_needs_two_transactions_a_trial(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"trials": 3}, execution={"parallel_trials": 1})
    reservations = bench.reserve()
    for number in range(3):
        assert [r.number for r in reservations] == [number]
        bench.start(reservations)
        reports = [bench.report(reservations[0], epoch, 1.0) for epoch in range(2)]
        recorded, following = finish_and_reserve(bench, [complete(reservations[0])], 1, reports)
        assert recorded == ids(reservations)
        reservations = following
        bench.check()
    assert reservations == []
    assert bench.study().state == "COMPLETED"
    assert bench.kinds()[-1] == "study.finished"


def test_it_writes_what_finish_and_reserve_write_one_after_the_other(make_bench: Callable[..., Bench]) -> None:
    apart, together = make_bench(name="apart"), make_bench(name="together")
    for bench in (apart, together):
        one, two, three = bench.running(3)
        bench.act(lifecycle.enqueue, {"x0": 0.75})
        outcomes = [complete(one, 0.5), complete(two, 0.25), ended(three, TrialState.PRUNED)]
        reports = [bench.report(r, 0, 1.0) for r in (one, two, three)]
        if bench is apart:
            bench.act(recording.finish, outcomes, reports, TTL_S)
            reservations = bench.reserve(5)
        else:
            _, reservations = finish_and_reserve(bench, outcomes, 5, reports)
        assert [(r.number, r.requested) for r in reservations] == [(3, {"x0": 0.75}), (4, None)]
        bench.check()
    assert told(together) == told(apart)
    assert together.study().best_number == 1


def test_a_member_whose_lease_is_lost_drops_out_and_the_others_are_recorded(bench: Bench) -> None:
    members = bench.running(3)
    bench.expire(members[1])
    bench.reap()
    (heir,) = bench.running(worker="w2")
    recorded, reservations = finish_and_reserve(bench, [complete(m, 0.1 * i) for i, m in enumerate(members)])
    assert recorded == {members[0].trial_id, members[2].trial_id}
    assert [r.number for r in reservations] == [3]
    assert [t.state for t in bench.trials()] == ["COMPLETE", "RUNNING", "COMPLETE", "WAITING"]
    assert bench.finish(heir) == {heir.trial_id}
    bench.check()


def test_the_budget_and_the_parallel_cap_hold(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"trials": 6}, execution={"parallel_trials": 3})
    one, two, three = bench.running(3)
    _, reservations = finish_and_reserve(bench, [complete(one), complete(two)], 16)
    assert [r.number for r in reservations] == [3, 4]
    bench.start(reservations)
    _, last = finish_and_reserve(bench, [complete(r) for r in (three, *reservations)], 16)
    assert [r.number for r in last] == [5]
    bench.check()


def test_it_reserves_nothing_of_a_study_that_the_ends_have_ended_or_halted(make_bench: Callable[..., Bench]) -> None:
    over = make_bench(name="over", budget={"trials": 1})
    assert finish_and_reserve(over, [complete(over.running()[0])], 4)[1] == []
    assert over.study().state == "COMPLETED"
    halted = make_bench(
        name="halted", objectives=[{"metric": "value", "direction": "minimize", "target": 0.1}], budget={"trials": 9}
    )
    one, two = halted.running(2)
    assert finish_and_reserve(halted, [complete(one, 0.05)], 4)[1] == []
    assert halted.study().state == "RUNNING"
    assert finish_and_reserve(halted, [complete(two, 0.5)], 4)[1] == []
    assert halted.study().state == "COMPLETED"
    failed = make_bench(name="failed", budget={"trials": 50})
    outcomes = [ended(r, TrialState.FAIL, FailureReason.EXCEPTION) for r in failed.running(10)]
    assert finish_and_reserve(failed, outcomes, 4)[1] == []
    assert failed.study().state == "FAILED"
    paused = make_bench(name="paused")
    running = paused.running()
    paused.act(lifecycle.pause)
    assert finish_and_reserve(paused, [complete(running[0])], 4) == (ids(running), [])
    for bench in (over, halted, failed, paused):
        bench.check()


def test_repeated_after_a_lost_commit_answer_it_records_nothing_twice(bench: Bench) -> None:
    running = bench.running(2)
    outcomes = [complete(r) for r in running]
    reports = [bench.report(r, 0, 1.0) for r in running]
    _, first = finish_and_reserve(bench, outcomes, 1, reports)
    before = bench.events()
    recorded, second = finish_and_reserve(bench, outcomes, 1, reports)
    assert recorded == ids(running)
    assert bench.events() == before
    assert bench.study().complete == 2
    assert [r.number for r in (*first, *second)] == [2, 3]
    bench.check()


def test_without_ends_it_reserves_and_without_room_it_records(bench: Bench) -> None:
    recorded, reservations = finish_and_reserve(bench, [], 2)
    assert (recorded, [r.number for r in reservations]) == (set(), [0, 1])
    bench.start(reservations)
    assert finish_and_reserve(bench, [complete(r) for r in reservations], 0) == (ids(reservations), [])
    bench.check()


def test_a_deleted_study_is_not_found(bench: Bench) -> None:
    (running,) = bench.running()
    bench.act(lifecycle.cancel)
    bench.act(lifecycle.delete_study)
    with pytest.raises(NotFound):
        finish_and_reserve(bench, [complete(running)])
    with pytest.raises(NotFound):
        finish_and_start(bench, [complete(running)], [])


def test_slots_are_refilled_in_the_transaction_that_ends_their_members(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"trials": 10})
    pooled = bench.reserve(2)
    members = bench.running(3)
    assert finish_and_start(bench, [complete(m) for m in members[:2]], pooled) == (ids(members[:2]), ids(pooled))
    assert [t.state for t in bench.trials()] == ["RUNNING", "RUNNING", "COMPLETE", "COMPLETE", "RUNNING"]
    assert [(e["type"], e["trial"]) for e in bench.events()[-5:]] == [
        ("trial.finished", 2), ("trial.best", 2), ("trial.finished", 3), ("trial.started", 0), ("trial.started", 1),
    ]  # fmt: skip
    bench.check()


def test_a_pooled_trial_whose_lease_is_lost_is_not_started(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"trials": 10})
    kept, lost = bench.reserve(2)
    (member,) = bench.running()
    bench.expire(lost)
    bench.reap()
    assert finish_and_start(bench, [complete(member)], [kept, lost]) == ({member.trial_id}, {kept.trial_id})
    assert bench.trial(lost.number).state == "WAITING"
    bench.check()


def test_nothing_is_started_where_the_ends_have_met_the_target(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(objectives=[{"metric": "value", "direction": "minimize", "target": 0.1}])
    pooled = bench.reserve()
    (member,) = bench.running()
    assert finish_and_start(bench, [complete(member, 0.05)], pooled) == ({member.trial_id}, set())
    assert bench.study().state == "COMPLETED"
    assert bench.trial(0).reason == "CANCELLED"
    bench.check()


def test_a_start_repeated_after_a_lost_commit_answer_finds_its_trials_started(bench: Bench) -> None:
    reservations = bench.reserve(2)
    assert bench.start(reservations[:1]) == ids(reservations[:1])
    before = bench.events()
    assert bench.start(reservations[:1]) == ids(reservations[:1])
    assert bench.events() == before
    assert bench.start(reservations) == ids(reservations)
    assert bench.study().running == 2
    bench.check()


def test_only_the_best_trials_files_are_kept_also_within_a_stack(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"trials": 10})

    def outcome(reservation: Reservation, value: float) -> Outcome:
        pointer = ArtifactPointer("model.keras", f"path-{reservation.number}", "application/zip", 1)
        return complete(reservation, value, artifacts=(pointer,))

    def superseded(*outcomes: Outcome) -> list[str]:
        recorded, _ = bench.act(turnover.finish_and_reserve, outcomes, [], 0, "w1", TTL_S)
        return sorted(recorded.superseded_paths)

    first, second, third, fourth = bench.running(4)
    assert superseded(outcome(first, 0.5)) == []
    assert superseded(outcome(second, 0.4), outcome(third, 0.3), outcome(fourth, 0.6)) == ["path-0", "path-1", "path-3"]
    with bench.database.read() as session:
        files = artifacts_of(session, list(ids([first, second, third, fourth])))
    assert {key: [file.path for file in found] for key, found in files.items()} == {third.trial_id: ["path-2"]}


def test_renewing_leases_never_waits_in_a_circle_with_what_ends_and_begins(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"trials": 200})
    stop = threading.Event()
    leased: list[tuple[int, str]] = []
    errors: list[BaseException] = []

    def keep() -> None:
        try:
            while not stop.is_set():
                with bench.database.write() as session:
                    leases.renew(session, list(leased), TTL_S)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        for _ in range(25):
            pooled, members = bench.reserve(2), bench.running(2)
            following = bench.reserve(2)
            leased[:] = [(r.trial_id, r.token) for r in (*pooled, *members, *following)]
            assert finish_and_start(bench, [complete(m) for m in members], pooled)[1] == ids(pooled)
            assert finish_and_start(bench, [complete(p) for p in pooled], following)[1] == ids(following)
            bench.act(recording.finish, [complete(r) for r in following], [], TTL_S)
    finally:
        stop.set()
        keeper.join()
    assert errors == []
    bench.check()


def test_workers_that_turn_over_at_once_share_the_budget_and_leave_no_gap(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"trials": 48})
    errors: list[BaseException] = []

    def work(worker: str) -> None:
        try:
            reservations = bench.reserve(2, worker)
            while reservations:
                bench.start(reservations, worker)
                pairs = [(r.trial_id, r.token) for r in reservations]
                with bench.database.write() as session:
                    assert leases.renew(session, pairs, TTL_S) == ids(reservations)
                recorded, following = finish_and_reserve(bench, [complete(r) for r in reservations], 2, (), worker)
                assert recorded == ids(reservations)
                reservations = following
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert (bench.study().state, bench.study().complete) == ("COMPLETED", 48)
    assert bench.kinds().count("study.finished") == 1
    bench.check()
