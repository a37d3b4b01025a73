"""Checkpoints of real networks: a trial that lost its trainer reaches what it would have reached."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.client import FettleClient
from tests.acceptance.conftest import running_service
from tests.support.processes import wait_for

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(300)]

LONG = 120


@pytest.fixture(scope="module")
def client(own_service_url: tuple[Path, str]) -> Iterator[FettleClient]:
    """A service whose trials leave a checkpoint after every epoch."""
    with running_service(*own_service_url, checkpoint_interval_s="0.001") as client:
        yield client


def study(name: str, **changes: Any) -> dict[str, Any]:
    body = {
        "name": name,
        "model": {"family": "mlp"},
        "dataset": {"name": "digits"},
        "hyperparameters": {"units": 16, "hidden_layers": 1, "dropout": 0.2, "lr_schedule": "cosine"},
        "training": {"epochs": 6},
        "objectives": [{"metric": "val_accuracy", "direction": "maximize"}],
        "sampler": {"name": "random"},
        "budget": {"trials": 1},
    }
    return body | changes


def over(client: FettleClient, study_id: str) -> Any:
    for _ in client.events(study_id):
        pass
    return client.study(study_id)


def test_models_are_written_beside_checkpoints(client: FettleClient) -> None:
    rates = {"units": 16, "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}}
    execution = {"keep_models": "all", "parallel_trials": 3}
    created = client.create_study(study("models", hyperparameters=rates, budget={"trials": 24}, execution=execution))
    ended = over(client, created.id)
    assert (ended.state, ended.progress.complete) == ("COMPLETED", 24)
    for trial in client.trials(created.id):
        assert (trial.attempt, trial.epochs) == (1, 6)
        assert "model.keras" in {file["name"] for file in trial.artifacts}
    wait_for(lambda: not _states(client, created.id), 60, "no checkpoint is left")


def _states(client: FettleClient, study_id: str) -> list[Path]:
    """The files of the study's checkpoints."""
    worker = next(w for w in client.workers() if w.state == "ACTIVE")
    folder = Path(psutil.Process(int(worker.pid)).environ()["FETTLE_DATA_DIR"])
    return list((folder / "artifacts" / study_id).rglob("state.npz"))


@pytest.mark.parametrize("instances", [{}, {"folds": 4, "repeats": 3}], ids=["once", "folds"])
def test_a_trial_that_lost_its_trainer_reaches_what_it_would_have_reached(
    client: FettleClient, instances: dict[str, int]
) -> None:
    training = {"epochs": LONG // (12 if instances else 1), "seed": 5, **instances}
    name = "-".join(instances)
    calm = client.create_study(study(f"calm{name}", training=training))
    over(client, calm.id)
    rough = client.create_study(study(f"rough{name}", training=training))
    wait_for(lambda: _epochs(client, rough.id) >= 15, 120, "epochs of a second instance, if there are any")
    worker = int(next(w for w in client.workers() if w.state == "ACTIVE").pid)
    trainer = next(c for c in psutil.Process(worker).children() if "worker.trainer" in " ".join(c.cmdline()))
    os.kill(trainer.pid, signal.SIGKILL)
    assert over(client, rough.id).state == "COMPLETED"
    (resumed,) = [e for e in client.events(rough.id) if e.type == "trial.resumed"]
    assert (resumed.trial, resumed.attempt) == (0, 2)
    assert 0 < resumed.epoch < LONG
    once, twice = client.trial(calm.id, 0), client.trial(rough.id, 0)
    assert (twice.state, twice.attempt, twice.epochs) == ("COMPLETE", 2, LONG)
    curves = [[p.metrics["val_loss"] for p in client.metrics(i, 0)] for i in (calm.id, rough.id)]
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    assert twice.values == pytest.approx(once.values, abs=0.006)  # two of the 360 samples
    assert "model.keras" in {file["name"] for file in twice.artifacts}


def _epochs(client: FettleClient, study_id: str) -> int:
    trials = list(client.trials(study_id))
    return len(client.metrics(study_id, 0)) if trials else 0
