"""SIGTERM to everything under load: all give back what they hold, uncharged, and a later start finishes the study."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from app.store.engine import Database
from app.store.tables import Worker
from tests.store.conftest import Bench
from tests.support.processes import Fleet, over, peak_parallel, wait_for
from tests.support.services import service_on
from tests.support.streams import Follower, logged

TRIALS = 100
PARALLEL = 36
GRACE_S = 0.2
LEAVE_S = GRACE_S + 25.0
"""What a loaded machine may take to end processes whose grace is over; by itself it is a second."""


def holders(bench: Bench) -> set[str | None]:
    """The workers that train now."""
    return {trial.worker_id for trial in bench.trials() if trial.state == "RUNNING"}


def active_workers(database: Database) -> int:
    with database.read() as session:
        return session.query(Worker).filter(Worker.state == "ACTIVE").count()


def test_everything_stops_in_order_under_load_and_a_later_start_finishes_the_study(
    database: Database, fleet: Fleet, make_study: Callable[..., Bench], tmp_path: Path
) -> None:
    with service_on(database, tmp_path, workers=2, drain_grace_s=GRACE_S) as service:
        extra = [fleet.start(drain_grace_s=GRACE_S) for _ in range(2)]
        wait_for(lambda: active_workers(database) == 4, 60, "four workers")
        bench = make_study(trials=TRIALS, epochs=6, delay_seconds=0.1, execution={"parallel_trials": PARALLEL})
        path = f"/v1/studies/{bench.public_id}/events"
        followers = [Follower(service.url, path, {bench.public_id}) for _ in range(6)]
        followers += [Follower(service.url, "/v1/events", {bench.public_id}) for _ in range(2)]
        for follower in followers:
            follower.start()
        wait_for(lambda: bench.study().complete >= 4 and len(holders(bench)) >= 2, 40, "trials on two workers")
        wait_for(lambda: all(follower.seen for follower in followers), what="open streams")
        assert service.process is not None
        tree = psutil.Process(service.process.pid).children(recursive=True)
        begun = time.monotonic()
        for worker in extra:
            worker.signal(signal.SIGTERM)
        assert service.terminate(LEAVE_S) == 0
        assert [worker.wait(LEAVE_S) for worker in extra] == [0, 0]
        assert time.monotonic() - begun < LEAVE_S
        assert psutil.wait_procs(tree, timeout=5)[1] == []

        study = bench.study()
        assert (study.state, study.leased, study.running) == ("RUNNING", 0, 0)
        assert 0 < study.complete < TRIALS
        assert {t.charged for t in bench.trials()} == {0}
        assert {e["reason"] for e in bench.events() if e["type"] == "trial.retried"} <= {"RELEASED"}
        bench.check()
        for follower in followers:
            assert follower.problems == []
            assert set(follower.statuses) == {200}
        # Nobody was cut off in the middle: what there was to tell at the end has been told, and nothing twice.
        seen = [list(follower.seen) for follower in followers]
        log = logged(database)[bench.public_id]
        for events in seen:
            assert events == log[: len(events)]

        service.start()
        assert over(bench, 120) == "COMPLETED"
        for follower in followers:
            follower.join(60)
            assert follower.is_done
            assert follower.problems == []
            assert follower.seen == logged(database)[bench.public_id]
        assert service.terminate(LEAVE_S) == 0
    trials = bench.trials()
    assert [(t.number, t.state, t.charged) for t in trials] == [(n, "COMPLETE", 0) for n in range(TRIALS)]
    assert bench.kinds().count("trial.finished") == TRIALS
    assert peak_parallel(bench.events()) <= PARALLEL
    bench.check()
    assert "Traceback" not in service.log() + "".join(worker.log() for worker in extra)
