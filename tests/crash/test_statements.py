"""A worker may die between any two statements of what it writes: nothing is half done, and another one recovers it."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from app.domain.trial import Reservation
from tests.crash.mortal import DIED, DONE, OPERATIONS, Mortals
from tests.store.conftest import Bench
from tests.support.processes import ROOT, Fleet, over

DEATHS = 2
"""Workers that are killed in one round of the test with real ones."""
TRIALS = 3
"""Two that are held, and one more that a finish reserves."""


@pytest.fixture(scope="module")
def mortals() -> Iterator[Mortals]:
    mortals = Mortals()
    yield mortals
    mortals.close()


def prepared(bench: Bench, operation: str) -> list[Reservation]:
    """What the operation is about: nothing, reservations, running trials, or some whose lease has expired."""
    if operation == "reserve":
        return []
    held = bench.reserve(2)
    if operation != "start":
        bench.start(held)
    if operation == "reap":
        bench.record(bench.report(held[0], 0, 0.5))
        bench.expire(*held)
    return held


def recorded(bench: Bench) -> tuple[Any, ...]:
    """All that a transaction may have changed."""
    rows = [
        (t.number, t.state, t.attempt, t.charged, t.lease_token, t.finish_token, t.value, t.finish_seq, t.epochs)
        for t in bench.trials()
    ]
    study = bench.study()
    counters = (study.state, study.next_number, study.leased, study.best_number, study.since_improvement)
    return rows, counters, bench.events(), [bench.metrics(t.id) for t in bench.trials()]


def complete_by_another(bench: Bench) -> None:
    """What any other worker does after the death of the first: its leases expire, its trials are run again."""
    bench.expire(*[r for t in bench.trials() if t.lease_token for r in [Reservation(t.id, t.number, "", 0, None)]])
    bench.reap()
    while reservations := bench.reserve(5, worker="w2"):
        assert bench.start(reservations, worker="w2") == {r.trial_id for r in reservations}
        for reservation in reservations:
            bench.record(bench.report(reservation, 0, 1.0))
            assert bench.finish(reservation, 1.0 + reservation.number) == {reservation.trial_id}


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@pytest.mark.smoke
def test_a_death_at_any_step_leaves_all_or_nothing_and_another_worker_completes_the_study(
    make_bench: Callable[..., Bench], mortals: Mortals, operation: str
) -> None:
    outcomes = []
    for step in count(1):
        bench = make_bench(name=f"{operation}-{step}", budget={"trials": TRIALS})
        held = prepared(bench, operation)
        before = recorded(bench)
        outcomes.append(mortals.act(bench, operation, held, step))
        after = recorded(bench)
        bench.check()
        # The last step is after COMMIT: all is there, though nobody heard of it. Before that, nothing is.
        assert outcomes[-1] in {DIED, DONE}
        if outcomes[-1] == DIED and after != before:
            outcomes[-1] = "committed"
        if operation == "finish":
            assert_repeatable(bench, held, after, is_recorded=after != before)
        complete_by_another(bench)
        assert [t.state for t in bench.trials()] == ["COMPLETE"] * TRIALS
        assert bench.study().state == "COMPLETED"
        finished = [e["trial"] for e in bench.events() if e["type"] == "trial.finished"]
        assert sorted(finished) == list(range(TRIALS))
        assert bench.kinds().count("study.finished") == 1
        bench.check()
        if outcomes[-1] == DONE:
            break
    # At least BEGIN or the study's lock, a write, the counter and COMMIT; one step after it.
    assert len(outcomes) >= 6
    assert outcomes[-2:] == ["committed", DONE]
    assert set(outcomes[:-2]) == {DIED}


def assert_repeatable(bench: Bench, held: list[Reservation], after: Any, *, is_recorded: bool) -> None:
    """A finish whose answer was lost is made again with the same token, as often as one likes."""
    if not is_recorded:
        return
    for _ in range(2):
        for reservation in held:
            assert bench.finish(reservation, 1.0 + reservation.number) == {reservation.trial_id}
        assert recorded(bench) == after
    # Not so with another result, and not so with another token.
    stranger = Reservation(held[0].trial_id, held[0].number, "0" * 32, 1, None)
    assert bench.finish(stranger, -7.0) == set()
    assert recorded(bench) == after


def test_workers_that_die_at_any_statement_of_their_lives_record_each_trial_once(
    fleet: Fleet, make_study: Callable[..., Bench], tmp_path: Path, crash_round: int
) -> None:
    """Real workers, each killed at some statement: while it registers, claims, starts, reports, finishes or renews."""
    chance = random.Random(crash_round)
    bench = make_study(trials=4, epochs=3, delay_seconds=0.05, execution={"max_attempts": 10, "parallel_trials": 2})
    for death in range(DEATHS):
        folder = tmp_path / f"death-{death}"
        folder.mkdir()
        step = chance.randint(1, 90)
        code = (
            "import sys\nif sys.orig_argv[-1] == 'worker':\n"
            "    from sqlalchemy.engine import Engine\n    from tests.crash.mortal import die_at\n"
            f"    die_at(Engine, {step})\n"
        )
        (folder / "sitecustomize.py").write_text(code)
        mortal = fleet.start(environment={"PYTHONPATH": f"{folder}:{ROOT}"}, lease_ttl_s=2)
        assert mortal.wait(60) == -signal.SIGKILL, step
        bench.check()
    fleet.start(lease_ttl_s=2)
    assert over(bench) == "COMPLETED"
    assert [t.state for t in bench.trials()] == ["COMPLETE"] * 4
    finished = [e["trial"] for e in bench.events() if e["type"] == "trial.finished"]
    assert sorted(finished) == list(range(4))
    for trial in bench.trials():
        assert [epoch for attempt, epoch in bench.metrics(trial.id) if attempt == trial.attempt] == list(range(3))
    bench.check()
