"""A worker that stood still for longer than its lease: another one has its trial, and nothing it writes counts."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from app.store import lifecycle
from app.store.engine import Database
from tests.crash.networks import artifacts, files_below, network_study
from tests.store.conftest import Bench
from tests.support.processes import Fleet, over, wait_for

MakeStudy = Callable[..., Bench]


def told(bench: Bench, attempt: int) -> int:
    """How many epochs an attempt has told of."""
    return sum(e["type"] == "trial.metrics" and e["attempt"] == attempt for e in bench.events())


def test_a_zombie_stops_training_what_is_another_workers(fleet: Fleet, make_study: MakeStudy) -> None:
    endless = make_study(name="endless", trials=1, epochs=100_000, delay_seconds=0.05)
    zombie = fleet.start(lease_ttl_s=3, worker_labels="who=zombie")
    wait_for(lambda: told(endless, 1) >= 2, what="the first attempt's metrics")
    zombie.signal(signal.SIGSTOP)
    heir = fleet.start(lease_ttl_s=3)
    wait_for(lambda: told(endless, 2) >= 2, what="the second attempt's metrics")
    epochs = told(endless, 1)
    zombie.signal(signal.SIGCONT)
    # The zombie alone may run this one, and can only once it has let go of the other.
    other = make_study(name="after", trials=1, epochs=2, execution={"worker_labels": {"who": "zombie"}})
    assert over(other) == "COMPLETED"
    row = endless.trial(0)
    assert (row.state, row.attempt, row.charged) == ("RUNNING", 2, 1)
    assert other.trial(0).worker_id != row.worker_id
    assert told(endless, 1) == epochs
    seen = told(endless, 2)
    wait_for(lambda: told(endless, 2) > seen, what="the heir trains on")
    assert endless.kinds().count("trial.retried") == 1
    endless.act(lifecycle.cancel)
    assert over(endless) == "CANCELLED"
    assert {worker.process.poll() for worker in (zombie, heir)} == {None}
    endless.check()
    other.check()


@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_zombies_model_is_no_artifact(fleet: Fleet, database: Database, tmp_path: Path) -> None:
    training = {"epochs": 120}
    slow = {"units": 8, "batch_size": 1, "learning_rate": {"type": "float", "low": 0.001, "high": 0.002}}
    bench = network_study(database, training=training, hyperparameters=slow)
    zombie = fleet.start(families="mlp", lease_ttl_s=3)
    wait_for(lambda: told(bench, 1) >= 2, 90, "the first attempt's metrics")
    zombie.signal(signal.SIGSTOP)  # its trainer trains on, to the end
    heir = fleet.start(families="mlp", lease_ttl_s=3)
    assert over(bench, 120) == "COMPLETED"
    wait_for(lambda: len(files_below(tmp_path / "artifacts", bench)) == len(artifacts(bench)) > 0, what="the files")
    row, events, kept = bench.trial(0), bench.events(), artifacts(bench)
    stored = files_below(tmp_path / "artifacts", bench)
    assert (row.state, row.attempt, row.charged) == ("COMPLETE", 2, 1)
    assert {path: size for _, _, path, size in kept} == stored
    assert len({path.rpartition("/")[0] for path in stored}) == 1
    heir.signal(signal.SIGTERM)
    assert heir.wait() == 0
    zombie.signal(signal.SIGCONT)
    other = network_study(database, name="after")
    assert over(other, 90) == "COMPLETED"
    after = bench.trial(0)
    assert (after.value, after.worker_id, after.finish_token) == (row.value, row.worker_id, row.finish_token)
    assert (bench.events(), artifacts(bench)) == (events, kept)
    wait_for(lambda: files_below(tmp_path / "artifacts", bench) == stored, what="the zombie's files are gone")
    assert max(epoch for attempt, epoch in bench.metrics(row.id) if attempt == 2) == 119
    bench.check()
