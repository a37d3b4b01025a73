"""Many workers at full speed, one of them killed every second: counts are exact, and no limit is passed by one.

`make crash` runs eight workers and 500 trials; otherwise it is smaller.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.store.conftest import Bench
from tests.support.processes import Fleet, peak_parallel, wait_for
from tests.support.services import IS_FULL

WORKERS, TRIALS = (8, 500) if IS_FULL else (3, 100)
KILL_EVERY_S = 1.0
PARALLEL = 12
LEASE_TTL_S = 2.0


@pytest.mark.timeout(900 if IS_FULL else 240)
def test_a_worker_killed_every_second_costs_nothing_but_time(fleet: Fleet, make_study: Callable[..., Bench]) -> None:
    bench = make_study(
        trials=TRIALS,
        epochs=4,
        delay_seconds=0.1,
        execution={"parallel_trials": PARALLEL, "max_attempts": 100},
    )
    workers = [fleet.start(lease_ttl_s=LEASE_TTL_S) for _ in range(WORKERS)]
    wait_for(lambda: bench.study().running > 0, 120, "a running trial")
    killed: set[int] = set()

    def is_due(at: float, finished: int) -> bool:
        # Where the machine is too slow to start a worker a second, nothing would ever finish.
        study = bench.study()
        return study.state != "RUNNING" or (time.monotonic() >= at and study.finished_count > finished)

    while bench.study().state == "RUNNING":
        at, finished = time.monotonic() + KILL_EVERY_S, bench.study().finished_count
        wait_for(lambda at=at, finished=finished: is_due(at, finished), 120, "the next kill")
        victim = random.randrange(WORKERS)
        killed.add(workers[victim].pid)
        workers[victim].signal(signal.SIGKILL)
        workers[victim].process.wait()
        workers[victim] = fleet.start(lease_ttl_s=LEASE_TTL_S)
    assert bench.study().state == "COMPLETED"
    print(f"{len(killed)} workers were killed")
    assert len(killed) >= 3

    trials, events = bench.trials(), bench.events()
    bench.check()
    assert [(t.number, t.state) for t in trials] == [(number, "COMPLETE") for number in range(TRIALS)]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert peak_parallel(events) <= PARALLEL
    told = Counter(event["type"] for event in events)
    assert (told["trial.finished"], told["study.finished"], events[-1]["type"]) == (TRIALS, 1, "study.finished")
    assert Counter(e["trial"] for e in events if e["type"] == "trial.finished") == Counter(range(TRIALS))
    reasons = Counter((e["trial"], e["reason"]) for e in events if e["type"] == "trial.retried")
    for trial in trials:
        # Each attempt but the last was lost with its worker, and is charged.
        assert trial.charged == reasons[trial.number, "LOST"]
        retried = sum(count for (number, _), count in reasons.items() if number == trial.number)
        assert trial.attempt == 1 + retried
        assert sorted(e for a, e in bench.metrics(trial.id) if a == trial.attempt) == list(range(4))
    # Nobody lost a lease who was alive: a worker's id has its pid.
    holder = {(e["trial"], e["attempt"]): e["worker_id"] for e in events if e["type"] == "trial.started"}
    lost = [(e["trial"], e["attempt"] - 1) for e in events if e["type"] == "trial.retried" and e["reason"] == "LOST"]
    assert {int(holder[attempt].rsplit("-", 2)[1]) for attempt in lost} <= killed
