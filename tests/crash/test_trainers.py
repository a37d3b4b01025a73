"""A trainer that misbehaves costs its trial an attempt and never the worker; what it did is told in the trial's log."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from app.domain.json import loads
from app.store import lifecycle
from app.store.engine import Database
from app.store.tables import TrialLog
from tests.crash.misdeeds import arm
from tests.crash.networks import network_study
from tests.store.conftest import Bench
from tests.support.processes import Fleet, over, wait_for

MakeStudy = Callable[..., Bench]

HONEST = 0.02
"""The epochs' length of a trial that does nothing wrong, in seconds."""

BROKEN_PIPE = "broke its pipe and was killed"
TOLD: dict[str, tuple[str, str]] = {
    "segfault": ("TRAINER_CRASHED", "SIGSEGV"),
    "killed": ("TRAINER_CRASHED", "SIGKILL (out of memory, perhaps)"),
    "leave": ("TRAINER_CRASHED", "exited with status 0"),
    "stop": ("TRAINER_HUNG", "silent for 3 seconds"),
    "hang": ("TRAINER_HUNG", "silent for 3 seconds"),
    "garbage": ("TRAINER_CRASHED", "Expected a message. Received: b'\\x00\\xff no message'"),
    "stranger": ("TRAINER_CRASHED", "news of a member that trains"),
    "absurd_length": ("TRAINER_CRASHED", "bad message length"),
    "half_a_frame": ("TRAINER_CRASHED", "SIGKILL"),
    "stuck_in_a_frame": ("TRAINER_CRASHED", "Expected the rest of a message"),
    "closed_pipe": ("TRAINER_CRASHED", BROKEN_PIPE),
}
"""What each misdeed is called, and a part of its words."""


def plan_of(names: tuple[str, ...], times: int = 1) -> dict[float, tuple[str, int]]:
    """A delay for each misdeed."""
    return {HONEST + 0.001 * (i + 1): (name, times) for i, name in enumerate(names)}


def log_of(bench: Bench, number: int, attempt: int) -> str:
    with bench.database.read() as session:
        found = session.get(TrialLog, (bench.trial(number).id, attempt))
        return "" if found is None else found.text


def one_of_each(make_study: MakeStudy, plan: dict[float, object], **changes: object) -> Bench:
    """A study that trains one trial of each delay, one after the other."""
    space = {"x0": 0.5, "delay_seconds": {"type": "categorical", "choices": [*plan]}}
    execution = {"parallel_trials": 1, "checkpoints": "off"}
    return make_study(
        trials=len(plan),
        epochs=4,
        hyperparameters=space,
        sampler={"name": "grid"},
        **({"execution": execution} | changes),
    )


@pytest.mark.parametrize(
    "names",
    [
        ("segfault", "killed", "leave", "stop", "hang"),
        ("garbage", "stranger", "absurd_length", "half_a_frame", "stuck_in_a_frame", "closed_pipe"),
    ],
    ids=["process", "pipe"],
)
def test_whatever_a_trainer_does_its_trial_is_retried_and_the_worker_lives(
    fleet: Fleet, make_study: MakeStudy, tmp_path: Path, names: tuple[str, ...]
) -> None:
    plan = plan_of(names)
    bench = one_of_each(make_study, plan)
    worker = fleet.start(environment=arm(tmp_path / "misdeeds", plan), hang_timeout_s=3)
    assert over(bench, 90) == "COMPLETED"
    assert worker.process.poll() is None
    assert {t.state for t in bench.trials()} == {"COMPLETE"}
    for trial in bench.trials():
        name, _ = plan[loads(trial.hyperparameters or "")["delay_seconds"]]
        code, words = TOLD[name]
        told = log_of(bench, trial.number, 1)
        assert (trial.attempt, trial.charged) == (2, 1), name
        assert told.startswith(f"{code}: "), name
        assert words in told, name
        assert [epoch for attempt, epoch in bench.metrics(trial.id) if attempt == 2] == list(range(4))
    assert bench.kinds().count("trial.retried") == len(names)
    assert bench.kinds().count("trial.finished") == len(names)
    bench.check()


def test_a_trainer_that_leaks_is_replaced_between_trials_and_no_trial_pays(
    fleet: Fleet, make_study: MakeStudy, tmp_path: Path
) -> None:
    plan = {HONEST: ("leak", 100)}
    bench = make_study(trials=4, epochs=3, delay_seconds=HONEST, execution={"parallel_trials": 1})
    worker = fleet.start(environment=arm(tmp_path / "misdeeds", plan), trainer_max_memory_mb=256)
    assert over(bench) == "COMPLETED"
    assert {(t.state, t.attempt, t.charged) for t in bench.trials()} == {("COMPLETE", 1, 0)}
    wait_for(lambda: worker.log().count("trainer_recycled") == 4, what="as many trainers as trials")
    assert "trainer_lost" not in worker.log()
    bench.check()


def test_a_trial_that_wants_all_memory_fails_by_that_name_and_the_trainer_goes_on(
    fleet: Fleet, make_study: MakeStudy, tmp_path: Path
) -> None:
    plan = {HONEST + 0.001: ("all_memory", 100), HONEST: ("", 0)}
    bench = one_of_each(make_study, plan)
    worker = fleet.start(environment=arm(tmp_path / "misdeeds", plan))
    trainer = worker.trainer_pid()
    assert over(bench) == "COMPLETED"
    assert worker.trainer_pid() == trainer
    greedy, modest = sorted(bench.trials(), key=lambda t: -loads(t.hyperparameters or "")["delay_seconds"])
    assert (greedy.state, greedy.reason, greedy.attempt) == ("FAIL", "OUT_OF_MEMORY", 1)
    assert "MemoryError" in log_of(bench, greedy.number, 1)
    assert (modest.state, modest.attempt) == ("COMPLETE", 1)
    bench.check()


def test_a_poison_trial_fails_at_its_last_attempt_and_its_neighbours_complete_uncharged(
    fleet: Fleet, make_study: MakeStudy, tmp_path: Path
) -> None:
    """It breaks every trainer that trains it: once with its stack, then alone."""
    poison = HONEST + 0.001
    worker = fleet.start(environment=arm(tmp_path / "misdeeds", {poison: ("segfault", 1000)}))
    # How many are sampled when the first stack begins is chance: one with neighbours comes soon.
    stacks = (poisoned(make_study, poison, name=f"poison-{i}") for i in range(5))
    assert any(len(stack) >= 2 for stack in stacks)
    assert worker.process.poll() is None


def poisoned(make_study: MakeStudy, poison: float, name: str) -> list[int]:
    """The trials that shared the poison's first attempt, after a study of it and three others that ended as it must."""
    bench = make_study(
        name=name,
        trials=4,
        epochs=4,
        hyperparameters={
            "x0": {"type": "float", "low": -1.0, "high": 1.0},
            # Members sleep as long as the slowest of them: the poison is what the whole stack sleeps.
            "delay_seconds": {"type": "float", "low": 0.0, "high": poison},
        },
        execution={"max_attempts": 3},
    )
    for delay in (poison, 0.0, 0.01, HONEST):
        bench.act(lifecycle.enqueue, {"x0": 0.1, "delay_seconds": delay})
    assert over(bench) == "COMPLETED"
    retried = [(e["trial"], e["reason"]) for e in bench.events() if e["type"] == "trial.retried"]
    together = sorted(number for number, reason in retried if reason == "RELEASED")
    first, *neighbours = bench.trials()
    # The crash of a stack charges nobody: of the poison's attempts the last three are its own.
    assert (first.state, first.reason, first.error_code) == ("FAIL", "EXCEPTION", "TRAINER_CRASHED")
    assert (first.attempt, first.charged) == (3 + (0 in together), 2)
    assert "SIGSEGV" in log_of(bench, 0, first.attempt)
    assert [(t.state, t.charged) for t in neighbours] == [("COMPLETE", 0)] * 3
    assert [t.attempt for t in neighbours] == [1 + (t.number in together) for t in neighbours]
    assert len(set(together)) == len(together)
    assert retried.count((0, "EXCEPTION")) == 2
    assert len(retried) == 2 + len(together)
    assert bench.kinds().count("trial.finished") == 4
    bench.check()
    return together


def test_a_worker_whose_trainer_hangs_is_still_told_to_leave(
    fleet: Fleet, make_study: MakeStudy, tmp_path: Path
) -> None:
    plan = plan_of(("hang",))
    bench = one_of_each(make_study, plan)
    worker = fleet.start(environment=arm(tmp_path / "misdeeds", plan), hang_timeout_s=600)
    wait_for((tmp_path / "misdeeds" / "hang-0").exists, what="a hung trainer")
    worker.process.terminate()
    assert worker.wait() == 0
    assert [(t.state, t.charged) for t in bench.trials()] == [("WAITING", 0)]
    assert bench.study().leased == 0
    bench.check()


@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(sys.platform != "linux", reason="Limits another process, as Linux alone can (prlimit)")
def test_a_network_that_takes_all_memory_fails_by_that_name_and_the_next_one_trains(
    fleet: Fleet, database: Database
) -> None:
    worker = fleet.start(families="mlp")
    first = network_study(database, name="warm")
    assert over(first, 120) == "COMPLETED"
    trainer = psutil.Process(worker.trainer_pid())
    limit = trainer.memory_info().vms + 300_000_000
    # What a trial needs is compared with the machine's memory before it starts: of this limit nobody knows.
    trainer.rlimit(psutil.RLIMIT_AS, (limit, limit))
    huge = {"units": 4096, "hidden_layers": 4, "batch_size": 64}
    greedy = network_study(database, name="greedy", hyperparameters=huge, execution={"max_attempts": 1})
    assert over(greedy, 120) == "FAILED"
    trial = greedy.trial(0)
    assert (trial.state, trial.reason) == ("FAIL", "OUT_OF_MEMORY")
    modest = network_study(database, name="modest")
    assert over(modest, 120) == "COMPLETED"
    assert modest.trial(0).state == "COMPLETE"
    assert worker.process.poll() is None
