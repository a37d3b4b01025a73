"""Trials that were sampled like others: the result that they take, and what the study then counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from app.domain.identity import identity
from app.domain.trial import FailureReason, Proposal, Reservation
from app.store import leases
from tests.store.conftest import TTL_S, Bench


def proposals(reservations: Sequence[Reservation], x0: Any, rule: Any) -> list[Proposal]:
    values, sampled = {"x0": x0, "fixed": 1}, {"x0": x0}
    return [Proposal(r, values, sampled, {}, identity=identity(sampled), on_duplicate=rule) for r in reservations]


def start(bench: Bench, reservations: Sequence[Reservation], x0: Any, rule: str = "reuse") -> set[int]:
    made = proposals(reservations, x0, rule)
    return set(bench.act(lambda session, study: leases.start(session, study, made, "w1", "cpu", TTL_S)))


def trained(bench: Bench, x0: Any, value: float, rule: str = "reuse", **outcome: Any) -> Reservation:
    [reservation] = bench.reserve()
    assert start(bench, [reservation], x0, rule) == {reservation.trial_id}
    bench.finish(reservation, value, metrics={"value": value, "more": 1.0}, **outcome)
    return reservation


def test_the_identity_is_that_of_the_values() -> None:
    assert identity({"a": 1.0, "b": "x"}) == identity({"b": "x", "a": 1})
    assert identity({"a": True}) != identity({"a": 1})
    assert identity({"a": "1"}) != identity({"a": 1})
    assert identity({"a": 0.1}) != identity({"a": 0.1, "b": 0})
    assert len(identity({})) == 32


def test_a_trial_takes_the_result_of_one_that_was_sampled_alike(bench: Bench) -> None:
    trained(bench, 0.5, 2.0, violations=(-1.0,), curve=((0, 2.0),))
    [again] = bench.reserve()
    assert start(bench, [again], 0.5) == set()
    first, second = bench.trials()
    assert (second.state, second.reused_from, second.attempt, second.lease_token) == ("COMPLETE", 0, 1, None)
    for name in ("objective_values", "value", "metrics", "feasible", "violations", "selected_epoch", "sampled"):
        assert getattr(second, name) == getattr(first, name), name
    assert (second.epochs, second.device_seconds, second.curve) == (0, 0.0, "[]")
    assert bench.study().complete == 2
    started, finished = bench.events()[-2:]
    assert (started["type"], finished["type"]) == ("trial.started", "trial.finished")
    assert finished["reused_from"] == 0
    assert finished["values"] == {"value": 2.0}
    bench.check()


def test_a_worker_that_repeats_or_gives_back_a_reused_trial_changes_nothing(bench: Bench) -> None:
    trained(bench, 0.5, 2.0)
    [again] = bench.reserve()
    start(bench, [again], 0.5)
    events = bench.events()
    assert start(bench, [again], 0.5) == set()
    assert bench.act(leases.release, [(again.trial_id, again.token)], "RELEASED") == set()
    assert bench.events() == events
    bench.check()


def test_only_complete_trials_of_the_same_study_are_reused(make_bench: Callable[..., Bench]) -> None:
    bench, other = make_bench(), make_bench(name="other")
    trained(other, 0.5, 2.0)
    failed, running, fresh, retried = bench.reserve(4)
    assert start(bench, [failed], 0.5) == {failed.trial_id}
    bench.fail(failed, FailureReason.EXCEPTION)
    assert start(bench, [running], 0.5) == {running.trial_id}
    assert start(bench, [fresh, retried], 0.5) == {fresh.trial_id, retried.trial_id}, "both train: none has a result"
    bench.finish(running, 1.0)
    bench.act(leases.release, [(retried.trial_id, retried.token)], "RELEASED")
    [again] = bench.reserve()
    assert again.number == retried.number
    assert start(bench, [again], 0.5) == set()
    assert bench.trial(again.number).reused_from == running.number
    assert bench.trial(again.number).attempt == 2
    bench.check()


def test_a_study_whose_last_trial_is_reused_is_over(bench: Bench) -> None:
    trained(bench, 0.5, 2.0)
    reservations = bench.reserve(4)
    assert len(reservations) == 4
    assert start(bench, reservations, 0.5) == set()
    study = bench.study()
    assert (study.state, study.complete, study.best_number, study.running) == ("COMPLETED", 5, 0, 0)
    assert bench.kinds()[-1] == "study.finished"
    bench.check()


def test_reused_trials_bring_no_improvement(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"trials": 100, "no_improvement_trials": 3})
    trained(bench, 0.5, 2.0)
    start(bench, bench.reserve(3), 0.5)
    assert bench.study().state == "COMPLETED"
    assert "no improvement" in (bench.study().state_reason or "")
    bench.check()


def test_a_trial_to_be_drawn_anew_waits_for_its_next_owner(bench: Bench) -> None:
    trained(bench, 0.5, 2.0, "redraw")
    [again] = bench.reserve()
    assert start(bench, [again], 0.5, "redraw") == set()
    bench.act(leases.release, [(again.trial_id, again.token)], "RELEASED")
    trial = bench.trial(again.number)
    assert (trial.state, trial.sampled, trial.attempt) == ("WAITING", None, 0)
    [same] = bench.reserve()
    assert same.number == again.number
    assert same.hyperparameters is None
    assert start(bench, [same], 0.25, "redraw") == {same.trial_id}
    bench.check()


def test_what_was_lost_or_cancelled_may_be_drawn_again(bench: Bench) -> None:
    [first] = bench.reserve()
    start(bench, [first], 0.5, "redraw")
    bench.fail(first, FailureReason.CANCELLED)
    [second] = bench.reserve()
    assert start(bench, [second], 0.5, "redraw") == {second.trial_id}
    [third] = bench.reserve()
    assert start(bench, [third], 0.5, "redraw") == set(), "one like it runs"
    assert start(bench, [third], 0.5, "train") == {third.trial_id}, "nothing else is left"
