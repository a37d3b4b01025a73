"""The life of a study, each on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import update

from app.domain.trial import FailureReason, Outcome, TrialState
from app.errors import NameTaken, NotFound, StateConflict
from app.store import lifecycle, recording
from app.store.reaper import Reaper
from app.store.tables import Study
from tests.store.conftest import Bench, definition


def test_a_name_is_taken_once_in_a_project_and_nothing_else_is_lost(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    with pytest.raises(NameTaken, match="sphere"):
        make_bench()
    with bench.database.write() as session:
        lifecycle.create_study(session, definition(), project="other", created_by=None, sample_limit=None)


def test_pause_lets_running_trials_finish_and_takes_reservations_back(bench: Bench) -> None:
    (running,) = bench.running()
    (reserved,) = bench.reserve()
    assert bench.act(lifecycle.pause).state == "PAUSED"
    assert bench.act(lifecycle.pause).state == "PAUSED"
    assert bench.start([reserved]) == set()
    assert bench.reserve() == []
    assert bench.finish(running) == {running.trial_id}
    assert bench.act(lifecycle.resume).state == "RUNNING"
    assert [r.number for r in bench.reserve(2)] == [1, 2]
    assert bench.kinds().count("study.paused") == 1
    bench.check()


def test_stop_cancels_what_waits_and_ends_with_what_runs(bench: Bench) -> None:
    (running,) = bench.running()
    bench.act(lifecycle.enqueue, {"x0": 0.5})
    assert bench.act(lifecycle.stop).state == "STOPPING"
    assert (bench.trial(1).state, bench.trial(1).reason) == ("FAIL", "CANCELLED")
    assert bench.study().state == "STOPPING"
    bench.finish(running)
    assert bench.study().state == "STOPPED"
    assert bench.kinds()[-1] == "study.finished"
    with pytest.raises(StateConflict):
        bench.act(lifecycle.resume)
    bench.check()


def test_a_running_trial_lost_while_stopping_does_not_keep_the_study_open(bench: Bench) -> None:
    (running,) = bench.running()
    bench.act(lifecycle.stop)
    bench.expire(running)
    reaper = Reaper(bench.database)
    assert (reaper.look(), reaper.look()) == (0, 1)
    assert bench.study().state == "STOPPED"
    assert bench.trial(0).reason == "CANCELLED"
    bench.check()


def test_cancel_ends_everything_at_once_and_fences_the_workers(bench: Bench) -> None:
    running, other = bench.running(2)
    bench.reserve()
    assert bench.act(lifecycle.cancel).state == "CANCELLED"
    assert bench.finish(running) == set()
    assert bench.record(bench.report(other, 0, 1.0)) == set()
    assert {(t.state, t.reason) for t in bench.trials()} == {("FAIL", "CANCELLED")}
    assert bench.kinds()[-1] == "study.finished"
    bench.check()


def test_one_trial_is_cancelled_and_the_study_goes_on(bench: Bench) -> None:
    first, second = bench.running(2)
    assert bench.act(lifecycle.cancel_trial, 0).reason == "CANCELLED"
    assert bench.act(lifecycle.cancel_trial, 0).reason == "CANCELLED"
    assert bench.finish(first) == set()
    assert bench.finish(second) == {second.trial_id}
    with pytest.raises(StateConflict):
        bench.act(lifecycle.cancel_trial, 1)
    with pytest.raises(NotFound):
        bench.act(lifecycle.cancel_trial, 99)
    assert bench.study().state == "RUNNING"
    bench.check()


def test_enqueued_trials_take_numbers_of_the_budget(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"trials": 2})
    bench.act(lifecycle.enqueue, {"x0": 0.5})
    assert [r.requested for r in bench.reserve(5)] == [{"x0": 0.5}, None]
    with pytest.raises(StateConflict, match="budget"):
        bench.act(lifecycle.enqueue, {"x0": 0.5})


def test_an_exhausted_grid_completes_the_study_below_its_budget(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(sample_limit=3, budget={"trials": 50})
    found = bench.running(10)
    assert [r.ordinal for r in found] == [0, 1, 2]
    for reservation in found:
        bench.finish(reservation)
    assert bench.study().state == "COMPLETED"
    assert "exhausted" in (bench.study().state_reason or "")


def test_ten_first_failures_or_fifty_in_a_row_fail_the_study(make_bench: Callable[..., Bench]) -> None:
    early = make_bench(budget={"trials": 100})
    for reservation in early.running(11)[:10]:
        early.fail(reservation)
    assert early.study().state == "FAILED"
    assert early.trial(10).reason == "CANCELLED"
    early.check()
    late = make_bench(name="late", budget={"trials": 100})
    first, *others = late.running(51)
    late.finish(first)
    for reservation in others[:49]:
        late.fail(reservation)
    assert late.study().state == "RUNNING"
    late.fail(others[49])
    assert late.study().state == "FAILED"


def test_lost_and_cancelled_trials_do_not_fail_the_study(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"trials": 30})
    for reservation in bench.running(12):
        bench.fail(reservation, FailureReason.LOST)
    assert bench.study().state == "RUNNING"


def test_a_study_whose_trials_all_failed_is_failed_however_few_there_were(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"trials": 4})
    reasons = (FailureReason.EXCEPTION, FailureReason.NON_FINITE, FailureReason.EXCEPTION, FailureReason.LOST)
    for reservation, reason in zip(bench.running(4), reasons, strict=True):
        assert bench.study().state == "RUNNING"
        bench.fail(reservation, reason)
    study = bench.study()
    words = (
        "All 4 trials of the budget are done, and 4 trials failed (2 EXCEPTION, 1 LOST, 1 NON_FINITE), "
        "none ended well: see their errors."
    )
    assert (study.state, study.state_reason) == ("FAILED", words)
    last = bench.events()[-1]
    assert (last["type"], last["state"], last["state_reason"]) == ("study.finished", "FAILED", words)
    with pytest.raises(StateConflict):
        bench.act(lifecycle.update_study, definition(budget={"trials": 9}))
    bench.check()


@pytest.mark.parametrize("limit", ["seconds", "device_seconds", "no_improvement_trials", "sample_limit"])
def test_whatever_ends_a_study_without_one_good_trial_it_is_failed(
    make_bench: Callable[..., Bench], limit: str
) -> None:
    grid = limit == "sample_limit"
    bench = make_bench(sample_limit=1, budget={"trials": 9}) if grid else make_bench(budget={limit: 1, "trials": 9})
    (reservation,) = bench.running()
    if limit == "seconds":
        with bench.database.write() as session:
            session.execute(update(Study).where(Study.id == bench.study_id).values(deadline_at=1.0))
    with bench.database.write() as session:
        outcome = Outcome(
            reservation.trial_id,
            reservation.token,
            TrialState.FAIL,
            reason=FailureReason.REFUSED,
            device_seconds=2.0,
        )
        recording.finish(session, bench.study_id, [outcome], [], 30.0)
    assert bench.study().state == "FAILED"
    assert "1 REFUSED" in (bench.study().state_reason or "")


def test_trials_that_were_cancelled_or_lost_do_not_make_a_study_failed(make_bench: Callable[..., Bench]) -> None:
    mixed = make_bench(name="mixed", budget={"trials": 2})
    failing, _ = mixed.running(2)
    mixed.act(lifecycle.cancel_trial, 1)
    mixed.fail(failing)
    assert mixed.study().state == "FAILED"
    cancelled = make_bench(name="cancelled", budget={"trials": 1})
    cancelled.running()
    cancelled.act(lifecycle.cancel_trial, 0)
    assert cancelled.study().state == "COMPLETED"
    lost = make_bench(name="lost", budget={"trials": 1})
    lost.fail(lost.running()[0], FailureReason.LOST)
    assert lost.study().state == "COMPLETED"
    good = make_bench(name="good", budget={"trials": 2})
    one, two = good.running(2)
    good.fail(one)
    good.finish(two)
    assert good.study().state == "COMPLETED"
    stopped = make_bench(name="stopped", budget={"trials": 2})
    stopped.fail(stopped.running()[0])
    stopped.act(lifecycle.stop)
    assert stopped.study().state == "STOPPED"


def test_a_target_ends_the_study_and_cancels_what_waits(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(objectives=[{"metric": "value", "direction": "minimize", "target": 0.1}])
    one, two = bench.running(2)
    bench.reserve()
    bench.finish(one, 0.05)
    study = bench.study()
    assert study.state == "RUNNING"
    assert "target" in (study.halt_reason or "")
    assert bench.reserve() == []
    bench.finish(two, 0.5)
    assert bench.study().state == "COMPLETED"
    bench.check()


def test_a_deadline_closes_an_idle_study_without_a_worker(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"seconds": 100.0})
    (reservation,) = bench.running()
    bench.finish(reservation)
    with bench.database.write() as session:
        session.execute(update(Study).where(Study.id == bench.study_id).values(deadline_at=1.0))
    Reaper(bench.database).look()
    assert bench.study().state == "COMPLETED"
    assert "seconds" in (bench.study().state_reason or "")


def test_limits_of_device_seconds_and_of_no_improvement_end_the_study(make_bench: Callable[..., Bench]) -> None:
    costly = make_bench(budget={"device_seconds": 10.0})
    (reservation,) = costly.running()
    costly.finish(reservation, device_seconds=11.0)
    assert costly.study().state == "COMPLETED"
    stuck = make_bench(name="stuck", budget={"no_improvement_trials": 2})
    for value in (0.5, 0.6, 0.4, 0.5, 0.5):
        (reservation,) = stuck.running()
        stuck.finish(reservation, value)
    assert stuck.study().state == "COMPLETED"
    assert stuck.study().best_value == 0.4


def test_a_larger_budget_reopens_a_completed_study_and_a_smaller_one_closes_it(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(budget={"trials": 1})
    bench.finish(bench.running()[0])
    assert bench.study().state == "COMPLETED"
    changed = bench.act(lifecycle.update_study, definition(budget={"trials": 2}))
    assert (changed.state, changed.revision, changed.finished_at) == ("RUNNING", 2, None)
    bench.finish(bench.running()[0])
    assert bench.study().state == "COMPLETED"
    assert bench.kinds().count("study.finished") == 2
    open_study = make_bench(name="open", budget={"trials": 9})
    open_study.finish(open_study.running()[0])
    assert open_study.act(lifecycle.update_study, definition(name="open", budget={"trials": 1})).state == "COMPLETED"


def test_an_infeasible_trial_is_complete_but_never_best(bench: Bench) -> None:
    one, two = bench.running(2)
    bench.finish(one, 0.1, violations=(0.5,))
    bench.finish(two, 0.9, violations=(-0.5,))
    assert (bench.trial(0).feasible, bench.trial(1).feasible) == (False, True)
    assert bench.study().best_number == 1


def test_only_a_study_that_is_over_is_deleted_with_all_its_rows(bench: Bench) -> None:
    (reservation,) = bench.running()
    bench.record(bench.report(reservation, 0, 1.0))
    with pytest.raises(StateConflict, match="cancel"):
        bench.act(lifecycle.delete_study)
    bench.act(lifecycle.cancel)
    bench.act(lifecycle.delete_study)
    assert (bench.trials(), bench.events(), bench.metrics(reservation.trial_id)) == ([], [], [])
    with pytest.raises(NotFound):
        bench.act(lifecycle.pause)
