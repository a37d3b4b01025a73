"""Writes that are made again because the answer to their commit was lost: the second time changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.trial import CheckpointPointer, Reservation
from app.store import checkpoints, recording, turnover, workers
from tests.store.conftest import TTL_S, Bench, complete


def everything(bench: Bench) -> tuple[Any, ...]:
    """What a repeated write could change."""
    trials = [(t.state, t.attempt, t.epochs, t.value, t.charged) for t in bench.trials()]
    return bench.events(), trials, [bench.metrics(t.id) for t in bench.trials()]


def checkpoint(reservation: Reservation, epochs: int) -> checkpoints.New:
    pointer = CheckpointPointer(f"checkpoints/{reservation.number}/{epochs}", epochs, 10)
    return checkpoints.New(reservation.trial_id, reservation.token, reservation.attempt, pointer)


def test_metrics_recorded_again_are_told_once(bench: Bench) -> None:
    one, two = bench.running(2)
    reports = [bench.report(one, 0, 1.0), bench.report(two, 0, 2.0), bench.report(one, 1, 0.5)]
    assert bench.record(*reports) == {one.trial_id, two.trial_id}
    before = everything(bench)
    assert bench.record(*reports) == {one.trial_id, two.trial_id}
    assert everything(bench) == before
    # What was not written yet is, beside what was.
    bench.record(*reports, bench.report(two, 1, 0.25))
    assert bench.metrics(two.trial_id) == [(1, 0), (1, 1)]
    assert bench.kinds().count("trial.metrics") == 4
    bench.check()


@pytest.mark.parametrize("reserves", [False, True])
def test_an_end_recorded_again_with_the_reports_of_those_that_train_on(bench: Bench, reserves: bool) -> None:
    ends, trains = bench.running(2)
    reports = [bench.report(ends, 0, 1.0), bench.report(trains, 0, 2.0)]

    def finish() -> recording.Recorded:
        if reserves:
            return bench.act(turnover.finish_and_reserve, [complete(ends)], reports, 0, "w1", TTL_S)[0]
        return bench.act(recording.finish, [complete(ends)], reports, TTL_S)

    assert finish().trial_ids == {ends.trial_id}
    before = everything(bench)
    assert finish().trial_ids == {ends.trial_id}
    assert everything(bench) == before
    bench.check()


def test_a_checkpoint_pointed_to_again_does_not_supersede_itself(bench: Bench) -> None:
    (running,) = bench.running()

    def leave(epochs: int) -> Any:
        reports = [bench.report(running, epoch, 1.0) for epoch in range(epochs)]
        written = [checkpoint(running, epochs)]
        return bench.act(turnover.record_and_checkpoint, bench.public_id, written, reports, TTL_S)

    assert leave(2) == ({running.trial_id}, [])
    before = everything(bench)
    assert leave(2) == ({running.trial_id}, [])
    assert everything(bench) == before
    assert leave(3) == ({running.trial_id}, ["checkpoints/0/2"])
    assert leave(3) == ({running.trial_id}, [])


def test_an_attempt_that_goes_on_is_told_of_once(bench: Bench) -> None:
    (first,) = bench.running()
    reports = [bench.report(first, epoch, 1.0) for epoch in range(3)]
    bench.act(turnover.record_and_checkpoint, bench.public_id, [checkpoint(first, 3)], reports, TTL_S)
    bench.expire(first)
    bench.reap()
    (second,) = bench.running()
    with bench.database.read() as session:
        (stored,) = checkpoints.of_numbers(session, bench.study_id, [0]).values()

    def go_on() -> Any:
        return bench.act(checkpoints.take_over, second.trial_id, second.token, stored)

    behind = go_on()
    assert [epoch for epoch, _ in behind] == [0, 1, 2]
    before = everything(bench)
    assert bench.kinds().count("trial.resumed") == 1
    assert go_on() == behind
    assert everything(bench) == before
    bench.record(bench.report(second, 3, 0.5))
    assert bench.metrics(second.trial_id)[-1] == (2, 3)


def test_a_worker_registered_again_is_the_same_worker(bench: Bench) -> None:
    for _ in range(2):
        with bench.database.write() as session:
            workers.register_worker(session, "w1", "here", 1, workers.Offer("cpu", ["function"], {}))
    with bench.database.write() as session:
        assert workers.heartbeat(session, "w1") is False
