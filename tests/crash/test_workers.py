"""Real workers, real signals, both databases: every trial is recorded once, and the log has no gap."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import psutil
import pytest
from sqlalchemy import update

from app.domain.json import loads
from app.domain.study import StudyDefinition
from app.store import lifecycle
from app.store.tables import Trial, TrialLog, Worker
from tests.conformance.fleet import Fleet as Simulated
from tests.store.conftest import Bench
from tests.support.processes import Fleet, over, peak_parallel, wait_for

MakeStudy = Callable[..., Bench]


def _reported(bench: Bench, number: int, epochs: int = 1) -> bool:
    trials = bench.trials()
    return len(trials) > number and len(bench.metrics(trials[number].id)) >= epochs


@pytest.mark.smoke("postgresql")
def test_a_worker_runs_a_study_to_its_exact_end(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=12, epochs=4)
    fleet.start()
    assert over(bench) == "COMPLETED"
    for trial in bench.trials():
        x0 = loads(trial.sampled or "")["x0"]
        assert (trial.state, trial.attempt, trial.epochs, trial.selected_epoch) == ("COMPLETE", 1, 4, 3)
        assert trial.value == pytest.approx(x0**2)
        assert bench.metrics(trial.id) == [(1, epoch) for epoch in range(4)]
    told = [e["metrics"]["value"] for e in bench.events() if e["type"] == "trial.metrics" and e["trial"] == 0]
    assert told == pytest.approx([bench.trial(0).value + (3 - e) / 4 for e in range(4)])
    assert bench.study().best_value == min(t.value for t in bench.trials() if t.value is not None)
    bench.check()


def test_workers_together_respect_the_parallel_cap_and_the_budget(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=30, epochs=3, delay_seconds=0.02, execution={"parallel_trials": 2})
    for _ in range(3):
        fleet.start()
    assert over(bench) == "COMPLETED"
    assert len(bench.trials()) == 30
    assert peak_parallel(bench.events()) == 2
    bench.check()


def test_one_by_one_each_trial_is_sampled_with_all_results_before_it_known(fleet: Fleet, make_study: MakeStudy) -> None:
    sampler = {"name": "tpe", "options": {"n_startup_trials": 5}}
    bench = make_study(trials=25, epochs=2, sampler=sampler, execution={"parallel_trials": 1})
    worker = fleet.start()
    assert over(bench) == "COMPLETED"
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    definition = StudyDefinition.model_validate_json(bench.study().definition or "")
    replay = Simulated(bench.database, definition, size=1, project="replay", judge=lambda values: values["x0"] ** 2)
    for trial in bench.trials():
        (proposal,) = replay.ask(0, 1)
        while proposal.reservation.trial_id in replay.running[0]:
            replay.advance(0, proposal.reservation.trial_id)
        assert loads(trial.sampled or "") == proposal.sampled, trial.number


@pytest.mark.smoke("postgresql")
def test_a_killed_workers_trial_is_retried_and_recorded_once(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=1, epochs=20, delay_seconds=0.1)
    victim = fleet.start(lease_ttl_s=1)
    wait_for(lambda: _reported(bench, 0, 2), what="the first attempt's metrics")
    trainer = victim.trainer_pid()
    victim.signal(signal.SIGKILL)
    wait_for(lambda: _is_gone(trainer), what="the trainer dies with its worker")
    sampled = bench.trial(0).sampled
    fleet.start(lease_ttl_s=1)
    assert over(bench) == "COMPLETED"
    trial = bench.trial(0)
    assert (trial.state, trial.attempt, trial.charged, trial.sampled) == ("COMPLETE", 2, 1, sampled)
    first, second = ([epoch for a, epoch in bench.metrics(trial.id) if a == attempt] for attempt in (1, 2))
    assert second == list(range(20))
    assert 2 <= len(first) < 20
    assert first == list(range(len(first)))
    told = [(e["type"], e.get("attempt")) for e in bench.events() if e["type"].startswith(("trial.", "study.f"))]
    metrics = "trial.metrics"
    begun = [("trial.started", 1), *[(metrics, 1)] * len(first), ("trial.retried", 2), ("trial.started", 2)]
    ends = [("trial.finished", None), ("trial.best", None), ("study.finished", None)]
    assert told == [*begun, *[(metrics, 2)] * 20, *ends]
    bench.check()


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.smoke("postgresql")
def test_a_stopped_workers_late_writes_are_refused(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=1, epochs=15, delay_seconds=0.1)
    zombie = fleet.start(lease_ttl_s=1)
    wait_for(lambda: _reported(bench, 0, 2), what="the first attempt's metrics")
    zombie.signal(signal.SIGSTOP)
    heir = fleet.start(lease_ttl_s=1)
    assert over(bench) == "COMPLETED"
    row, events = bench.trial(0), bench.events()
    assert row.attempt == 2
    zombie.signal(signal.SIGCONT)
    # It notices, stops the trial, and is fit for work again: the next study's trial is run by it alone.
    heir.signal(signal.SIGTERM)
    assert heir.wait() == 0
    other = make_study(name="after", trials=1, epochs=2)
    assert over(other) == "COMPLETED"
    after = bench.trial(0)
    assert bench.events() == events
    assert (after.value, after.worker_id, after.finished_at) == (row.value, row.worker_id, row.finished_at)
    assert max(epoch for attempt, epoch in bench.metrics(row.id) if attempt == 1) < 14
    bench.check()


@pytest.mark.smoke
def test_a_killed_trainer_costs_one_attempt_and_never_the_worker(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=2, epochs=10, delay_seconds=0.1, execution={"parallel_trials": 1})
    worker = fleet.start()
    wait_for(lambda: _reported(bench, 0), what="the first attempt's metrics")
    os.kill(worker.trainer_pid(), signal.SIGKILL)
    assert over(bench) == "COMPLETED"
    first, second = bench.trials()
    assert (first.state, first.attempt, first.charged) == ("COMPLETE", 2, 1)
    assert (second.state, second.attempt, second.charged) == ("COMPLETE", 1, 0)
    assert worker.process.poll() is None
    bench.check()


def test_a_trainer_that_always_dies_fails_the_trial_with_the_reason_in_its_log(
    fleet: Fleet, make_study: MakeStudy
) -> None:
    bench = make_study(trials=1, epochs=1000, delay_seconds=0.05, execution={"max_attempts": 2})
    worker = fleet.start()
    for attempt in (1, 2):
        wait_for(
            lambda a=attempt: any(x == a for x, _ in bench.metrics(bench.trials()[0].id)) if bench.trials() else False
        )
        os.kill(worker.trainer_pid(), signal.SIGSEGV)
        wait_for(lambda a=attempt: bench.trial(0).charged == a or bench.trial(0).state == "FAIL")
    trial = bench.trial(0)
    assert (trial.state, trial.reason, trial.error_code) == ("FAIL", "EXCEPTION", "TRAINER_CRASHED")
    assert "SIGSEGV" in (trial.error_message or "")
    with bench.database.read() as session:
        assert "SIGSEGV" in session.get_one(TrialLog, (trial.id, 2)).text
    bench.check()


def test_a_hung_trainer_is_replaced(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=1, epochs=10, delay_seconds=0.1)
    worker = fleet.start(hang_timeout_s=2)
    wait_for(lambda: _reported(bench, 0), what="the first attempt's metrics")
    os.kill(worker.trainer_pid(), signal.SIGSTOP)
    assert over(bench) == "COMPLETED"
    assert (bench.trial(0).attempt, bench.trial(0).charged) == (2, 1)
    bench.check()


@pytest.mark.smoke
def test_sigterm_under_load_gives_everything_back_uncharged(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=24, epochs=5, delay_seconds=0.04)
    leaving, staying = fleet.start(), fleet.start()
    wait_for(lambda: bench.study().complete >= 4, what="four finished trials")
    leaving.terminate()
    assert leaving.wait() == 0
    assert over(bench) == "COMPLETED"
    assert staying.process.poll() is None
    trials = bench.trials()
    assert len(trials) == 24
    assert {t.state for t in trials} == {"COMPLETE"}
    assert sum(t.charged for t in trials) == 0
    assert bench.kinds().count("trial.finished") == 24
    bench.check()


def test_a_draining_worker_finishes_within_its_grace_time(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=60, epochs=10, delay_seconds=0.1)
    worker = fleet.start(drain_grace_s=30)
    wait_for(lambda: _reported(bench, 0), what="metrics")
    with bench.database.write() as session:
        session.execute(update(Worker).values(drain_requested=True))
    assert worker.wait() == 0
    done = [t for t in bench.trials() if t.state != "WAITING"]
    assert 1 <= len(done) < 60  # those in training finished, those that waited were given back
    assert {(t.state, t.attempt, t.epochs) for t in done} == {("COMPLETE", 1, 10)}
    assert bench.study().leased == 0
    with bench.database.read() as session:
        assert session.query(Worker).one().state == "STOPPED"


def test_cancelling_a_study_really_stops_the_running_loop(fleet: Fleet, make_study: MakeStudy) -> None:
    endless = make_study(name="endless", trials=1, epochs=100_000, delay_seconds=0.05)
    worker = fleet.start()
    wait_for(lambda: _reported(endless, 0, 2), what="metrics")
    endless.act(lifecycle.cancel)
    epochs = len(endless.metrics(endless.trial(0).id))
    other = make_study(name="next", trials=1)
    assert over(other) == "COMPLETED"
    assert len(endless.metrics(endless.trial(0).id)) == epochs
    assert worker.process.poll() is None
    endless.check()


def test_cancelling_a_trial_in_a_long_epoch_replaces_its_trainer(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=1, epochs=2, delay_seconds=3000.0)
    fleet.start()
    wait_for(lambda: bench.study().running == 1, what="a running trial")
    bench.act(lifecycle.cancel)
    other = make_study(name="next", trials=1)
    assert over(other) == "COMPLETED"


def test_a_trial_past_its_time_limit_is_stopped_and_classified(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=1, epochs=1000, delay_seconds=0.05, execution={"trial_timeout_seconds": 0.5})
    fleet.start()
    assert over(bench) == "FAILED"
    trial = bench.trial(0)
    assert (trial.state, trial.reason, trial.error_code) == ("FAIL", "TIMEOUT", "TRIAL_TIMEOUT")
    assert trial.epochs < 1000
    bench.check()


def test_a_budget_of_seconds_stops_running_trials_at_their_next_epoch(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(epochs=1000, delay_seconds=0.05, budget={"seconds": 1.0})
    fleet.start(lease_ttl_s=2)
    assert over(bench) == "COMPLETED"
    assert "seconds" in (bench.study().state_reason or "")
    assert {(t.state, t.reason) for t in bench.trials()} == {("FAIL", "CANCELLED")}
    bench.check()


def test_a_trial_that_cannot_run_is_refused_in_words(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=1, hyperparameters={"function": "branin", "x0": 1.0, "x1": 1.0, "x2": 1.0})
    fleet.start()
    assert over(bench) == "FAILED"
    trial = bench.trial(0)
    assert (trial.state, trial.reason) == ("FAIL", "REFUSED")
    assert "branin" in (trial.error_message or "")


def test_pruned_trials_are_recorded_with_the_epochs_they_ran(fleet: Fleet, make_study: MakeStudy) -> None:
    pruner = {"name": "threshold", "options": {"upper": 1.2, "n_warmup_steps": 0}}
    bench = make_study(trials=10, epochs=10, pruner=pruner)
    fleet.start()
    assert over(bench) == "COMPLETED"
    # value = x² + (9 - e)/10 is above 1.2 in the first epoch where x² > 0.3.
    for trial in bench.trials():
        squared = loads(trial.sampled or "")["x0"] ** 2
        assert trial.state == ("PRUNED" if squared > 0.3 else "COMPLETE")
        assert len(bench.metrics(trial.id)) == trial.epochs
    bench.check()


def test_enqueued_values_reach_the_trial_and_the_rest_is_sampled(fleet: Fleet, make_study: MakeStudy) -> None:
    space = {n: {"type": "float", "low": -1.0, "high": 1.0} for n in ("x0", "x1")}
    bench = make_study(trials=2, hyperparameters=space)
    bench.act(lifecycle.enqueue, {"x0": 0.5})
    fleet.start()
    assert over(bench) == "COMPLETED"
    found = [loads(t.hyperparameters or "") for t in bench.trials()]
    assert found[0]["x0"] == 0.5
    assert -1 <= found[0]["x1"] <= 1
    assert found[1]["x0"] != 0.5
    queued = [t for t in bench.trials() if t.requested is not None]
    assert [t.number for t in queued] == [0]


@pytest.mark.smoke("postgresql")
def test_a_database_that_goes_away_and_comes_back_loses_no_trial(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=6, epochs=5, delay_seconds=0.05)
    fleet.start()
    wait_for(lambda: _reported(bench, 0), what="metrics")
    if not bench.database.is_sqlite:
        with bench.database.engine.connect() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    assert over(bench) == "COMPLETED"
    assert [t.state for t in bench.trials()] == ["COMPLETE"] * 6
    with bench.database.read() as session:
        assert session.query(Trial).filter(Trial.attempt != 1).count() == 0
    bench.check()


def test_a_crash_of_a_stack_charges_nobody_and_its_members_rerun_alone(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=4, epochs=20, delay_seconds=0.2)
    worker = fleet.start()
    wait_for(lambda: bench.study().running == 4 and all(_reported(bench, n) for n in range(4)), what="a stack of four")
    os.kill(worker.trainer_pid(), signal.SIGKILL)
    assert over(bench, 60) == "COMPLETED"
    assert [(t.state, t.attempt, t.charged) for t in bench.trials()] == [("COMPLETE", 2, 0)] * 4
    again = [e for e in bench.events() if e.get("attempt") == 2 or e["type"] == "trial.finished"]
    assert peak_parallel(again) == 1
    bench.check()


def test_a_trainer_is_replaced_in_a_long_study_though_its_slots_could_be_refilled(
    fleet: Fleet, make_study: MakeStudy
) -> None:
    bench = make_study(trials=100, epochs=3, delay_seconds=0.01)
    worker = fleet.start(trainer_max_trials=16)
    assert over(bench) == "COMPLETED"
    assert {(t.state, t.attempt) for t in bench.trials()} == {("COMPLETE", 1)}
    assert worker.log_path.read_text().count("trainer_recycled") >= 2
    bench.check()


def test_a_pause_gives_back_what_waits_at_once_and_lets_what_trains_end(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=400, epochs=5, delay_seconds=0.1)
    fleet.start(lease_ttl_s=300)
    wait_for(lambda: _reported(bench, 0), what="metrics")
    bench.act(lifecycle.pause)
    # Long before any lease expires.
    wait_for(lambda: bench.study().leased == 0, 30, "no leases")
    states = {t.state for t in bench.trials()}
    assert "COMPLETE" in states
    assert "RUNNING" not in states
    bench.check()
    ended = bench.study().complete
    bench.act(lifecycle.resume)
    wait_for(lambda: bench.study().complete > ended, what="more trials")
    bench.act(lifecycle.cancel)


def test_deleting_a_study_whose_trial_still_trains_leaves_the_worker_at_work(
    fleet: Fleet, make_study: MakeStudy
) -> None:
    doomed = make_study(name="doomed", trials=5, epochs=100, delay_seconds=0.2)
    worker = fleet.start()
    wait_for(lambda: _reported(doomed, 0), what="metrics")
    doomed.act(lifecycle.cancel)
    doomed.act(lifecycle.delete_study)
    other = make_study(name="next", trials=3)
    assert over(other) == "COMPLETED"
    assert worker.process.poll() is None
    other.check()
