"""A long trial that loses its worker goes on from its last checkpoint, on both databases, and is recorded once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.domain.json import loads
from app.store.tables import Checkpoint, Metric, TrialLog
from tests.store.conftest import Bench
from tests.support.processes import Fleet, files_within, over, wait_for

MakeStudy = Callable[..., Bench]


def checkpoint(bench: Bench, number: int = 0) -> Checkpoint | None:
    with bench.database.read() as session:
        return session.get(Checkpoint, bench.trial(number).id) if len(bench.trials()) > number else None


def checkpoint_of(bench: Bench, epochs: int, number: int = 0) -> Checkpoint:
    """The trial's checkpoint, once it has at least so many epochs behind it."""

    def found() -> Checkpoint | None:
        kept = checkpoint(bench, number)
        return kept if kept is not None and kept.epochs >= epochs else None

    kept: Checkpoint = wait_for(found, what=f"a checkpoint of {epochs} epochs")
    return kept


def resumed(bench: Bench) -> list[tuple[int, int]]:
    """The attempts that went on from a checkpoint, and the epochs that they went on with."""
    return [(e["attempt"], e["epoch"]) for e in bench.events() if e["type"] == "trial.resumed"]


def told(bench: Bench, attempt: int) -> list[int]:
    """The epochs that an attempt trained itself."""
    return [e["epoch"] for e in bench.events() if e["type"] == "trial.metrics" and e["attempt"] == attempt]


def curve(bench: Bench, attempt: int) -> list[tuple[int, float]]:
    """The values that an attempt has, by epoch."""
    with bench.database.read() as session:
        query = select(Metric.epoch, Metric.metrics).where(Metric.attempt == attempt).order_by(Metric.epoch)
        return [(row.epoch, loads(row.metrics)["value"]) for row in session.execute(query)]


def files(folder: Path) -> list[Path]:
    return files_within(folder / "artifacts")


def assert_went_on(bench: Bench, *, attempt: int = 2, epochs: int) -> None:
    """The trial's last attempt has the whole curve, of which it trained but the rest."""
    trial = bench.trial(0)
    assert (trial.state, trial.attempt, trial.epochs) == ("COMPLETE", attempt, epochs)
    ((went_on, first),) = [r for r in resumed(bench) if r[0] == attempt]
    assert (went_on, first > 0) == (attempt, True)
    assert told(bench, attempt) == list(range(first, epochs))
    value = loads(trial.sampled or "")["x0"] ** 2
    whole = [(e, pytest.approx(value + (epochs - 1 - e) / epochs)) for e in range(epochs)]
    assert curve(bench, attempt) == whole
    assert loads(trial.curve or "") == [[epoch, v] for epoch, v in whole]
    assert bench.kinds().count("trial.finished") == 1
    bench.check()


def test_a_killed_workers_trial_goes_on_from_its_checkpoint_elsewhere(
    fleet: Fleet, make_study: MakeStudy, tmp_path: Path
) -> None:
    bench = make_study(trials=1, epochs=40, delay_seconds=0.1)
    victim = fleet.start(lease_ttl_s=1, checkpoint_interval_s=0.3)
    checkpoint_of(bench, 6)
    victim.signal(signal.SIGKILL)
    heir = fleet.start(lease_ttl_s=1, checkpoint_interval_s=0.3)
    assert over(bench) == "COMPLETED"
    assert_went_on(bench, epochs=40)
    assert bench.trial(0).charged == 1
    # A finished trial's checkpoints are deleted, the earlier attempt's as well.
    wait_for(lambda: checkpoint(bench) is None and not files(tmp_path), what="no checkpoint is left")
    assert heir.process.poll() is None


@pytest.mark.smoke
def test_a_killed_trainers_trial_goes_on_in_the_same_worker(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=1, epochs=40, delay_seconds=0.1)
    worker = fleet.start(checkpoint_interval_s=0.3)
    checkpoint_of(bench, 6)
    os.kill(worker.trainer_pid(), signal.SIGKILL)
    assert over(bench) == "COMPLETED"
    assert_went_on(bench, epochs=40)


def test_a_draining_worker_gives_its_trial_back_where_it_was(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=1, epochs=60, delay_seconds=0.1)
    leaving = fleet.start(drain_grace_s=2)
    wait_for(lambda: len(bench.trials()) and len(bench.metrics(bench.trial(0).id)) >= 3, what="three epochs")
    leaving.signal(signal.SIGTERM)
    assert leaving.wait() == 0
    behind = checkpoint_of(bench, 3).epochs
    assert (bench.trial(0).state, bench.trial(0).charged, bench.study().leased) == ("WAITING", 0, 0)
    assert behind == len(bench.metrics(bench.trial(0).id))  # not an epoch was lost
    fleet.start()
    assert over(bench) == "COMPLETED"
    assert resumed(bench) == [(2, behind)]
    assert_went_on(bench, epochs=60)


def test_a_zombies_checkpoint_is_refused(fleet: Fleet, make_study: MakeStudy, tmp_path: Path) -> None:
    bench = make_study(trials=1, epochs=60, delay_seconds=0.1)
    zombie = fleet.start(lease_ttl_s=1, checkpoint_interval_s=0.3)
    checkpoint_of(bench, 3)
    trainer = zombie.trainer_pid()
    zombie.signal(signal.SIGSTOP)  # its trainer trains on, and writes what it was asked for
    fleet.start(lease_ttl_s=1, checkpoint_interval_s=0.3)
    wait_for(lambda: told(bench, 2), what="the second attempt")
    zombie.signal(signal.SIGCONT)
    assert over(bench) == "COMPLETED"
    assert_went_on(bench, epochs=60)
    assert trainer
    wait_for(lambda: not files(tmp_path), what="no file is left of either")


def test_a_checkpoint_that_cannot_be_read_costs_the_epochs_and_not_the_trial(
    fleet: Fleet, make_study: MakeStudy, tmp_path: Path
) -> None:
    bench = make_study(trials=1, epochs=20, delay_seconds=0.1)
    victim = fleet.start(lease_ttl_s=1, checkpoint_interval_s=0.3)
    kept = checkpoint_of(bench, 2)
    victim.signal(signal.SIGKILL)
    victim.wait()
    for path in files(tmp_path):
        path.write_bytes(path.read_bytes()[:-40])
    fleet.start(lease_ttl_s=1)
    assert over(bench) == "COMPLETED"
    assert told(bench, 2) == list(range(20))
    assert resumed(bench) == []
    with bench.database.read() as session:
        text = session.get_one(TrialLog, (kept.trial_id, 2)).text
    assert "CHECKPOINT_UNREADABLE" in text
    assert "starts from epoch 0" in text
    bench.check()


def test_a_study_without_checkpoints_starts_its_trials_anew(fleet: Fleet, make_study: MakeStudy) -> None:
    bench = make_study(trials=1, epochs=15, delay_seconds=0.1, execution={"checkpoints": "off"})
    victim = fleet.start(lease_ttl_s=1, checkpoint_interval_s=0.2)
    wait_for(lambda: len(told(bench, 1)) >= 5, what="five epochs")
    victim.signal(signal.SIGKILL)
    fleet.start(lease_ttl_s=1, checkpoint_interval_s=0.2)
    assert over(bench) == "COMPLETED"
    assert (resumed(bench), told(bench, 2)) == ([], list(range(15)))


def test_pruners_see_the_epochs_behind_a_checkpoint(fleet: Fleet, make_study: MakeStudy) -> None:
    options: dict[str, Any] = {"n_startup_trials": 1, "n_warmup_steps": 20}
    space = {"x0": {"type": "categorical", "choices": [0.0, 9.0]}, "delay_seconds": 0.1}
    bench = make_study(
        trials=2,
        epochs=30,
        hyperparameters=space,
        sampler={"name": "grid"},
        pruner={"name": "median", "options": options},
        execution={"parallel_trials": 1},
    )
    worker = fleet.start(checkpoint_interval_s=0.3)
    wait_for(lambda: bench.study().complete + bench.study().pruned == 1, what="the first trial's end")
    checkpoint_of(bench, 6, number=1)
    os.kill(worker.trainer_pid(), signal.SIGKILL)
    assert over(bench) == "COMPLETED"
    second = bench.trial(1)
    assert second.attempt == 2
    assert [epoch for epoch, _ in loads(second.curve or "")] == list(range(second.epochs))
    worse = loads(second.sampled or "")["x0"] == 9.0
    assert (second.state, second.epochs) == (("PRUNED", 21) if worse else ("COMPLETE", 30))
    bench.check()
