"""Populations of real networks through HTTP: weights are copied, and a schedule is found that no fixed values have."""

from __future__ import annotations

import json
import os
import signal
from itertools import pairwise
from statistics import median
from typing import Any

import keras
import numpy as np
import psutil
import pytest
from sklearn.datasets import load_digits

from app.client import FettleClient
from tests.support.processes import ROOT, wait_for

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(300)]

EXAMPLE: dict[str, Any] = json.loads((ROOT / "examples" / "digits-pbt.json").read_text("utf-8"))
SEEDS = range(5)
SIZE, EPOCHS = 8, 40


def finish(client: FettleClient, definition: dict[str, Any]) -> Any:
    created = client.create_study(definition)
    for _ in client.events(created.id):
        pass
    over = client.study(created.id)
    assert over.state == "COMPLETED", over.state_reason
    return over


def example(name: str, **changes: Any) -> dict[str, Any]:
    return EXAMPLE | {"name": name} | changes


def test_a_population_beats_random_search_at_as_many_epochs(client: FettleClient) -> None:
    reached: dict[str, list[float]] = {"pbt": [], "random": []}
    for seed in SEEDS:
        options = EXAMPLE["sampler"]["options"] | {"seed": seed}
        training = {"epochs": EPOCHS, "seed": seed}
        samplers = {
            "pbt": {"sampler": {"name": "pbt", "options": options}, "training": training},
            # Random search may take the best of all epochs, which the population may not.
            "random": {
                "sampler": {"name": "random", "options": {"seed": seed}},
                "training": training | {"select_epoch": "best"},
                "budget": {"trials": SIZE},
            },
        }
        for name, changes in samplers.items():
            over = finish(client, example(f"{name}-{seed}", execution={"keep_models": "none"}, **changes))
            assert sum(t.epochs or 0 for t in client.trials(over.id)) == SIZE * EPOCHS
            reached[name].append(over.best.values["val_loss"])
    print(reached)
    assert median(reached["pbt"]) < median(reached["random"])


def test_a_line_trains_on_and_its_model_is_the_best_ones(client: FettleClient, tmp_path: Any) -> None:
    # Nothing that matters is searched: the loss of every line falls as that of one long training would.
    values = EXAMPLE["hyperparameters"] | {
        "learning_rate": 0.05, "momentum": 0.9, "dropout": 0.0,
        "l2": {"type": "float", "low": 1e-8, "high": 1e-7, "log": True},
    }  # fmt: skip
    over = finish(client, example("lines", hyperparameters=values, training={"epochs": 20, "seed": 3}))
    assert over.progress.complete == 5 * SIZE
    best = client.best(over.id)[0]
    line = client.lineage(over.id, best.number)
    assert [t.first_epoch for t in line] == list(range(0, best.first_epoch + 1, 4))
    assert [t.parent for t in line] == [None, *(t.number for t in line[:-1])]
    losses = [[point.metrics["loss"] for point in client.metrics(over.id, t.number)] for t in line]
    for before, after in pairwise(losses):
        assert after[0] < before[-1] * 1.1  # the child's first epoch continues where the parent's last one ended
        assert after[0] < 0.5 * losses[0][0]
    started = {e.trial: e for e in client.events(over.id) if e.type == "trial.started"}
    assert [(started[t.number].parent, started[t.number].first_epoch) for t in line] == [
        (t.parent, t.first_epoch) for t in line
    ]
    path = tmp_path / "model.keras"
    client.download_artifact(over.id, best.number, "model.keras", path)
    digits = load_digits()
    right = keras.models.load_model(path).predict(digits.data.astype(np.float32), verbose=0).argmax(1) == digits.target
    assert right.mean() > 0.95


def test_a_killed_trainer_costs_a_population_no_trial(client: FettleClient) -> None:
    created = client.create_study(example("killed", training={"epochs": EPOCHS, "seed": 1}))
    wait_for(lambda: client.study(created.id).progress.complete >= 2 * SIZE, 120, "two generations")
    worker = int(next(w for w in client.workers() if w.state == "ACTIVE").pid)
    trainer = next(c for c in psutil.Process(worker).children() if "worker.trainer" in " ".join(c.cmdline()))
    os.kill(trainer.pid, signal.SIGKILL)
    for _ in client.events(created.id):
        pass
    over = client.study(created.id)
    assert (over.state, over.progress.complete, over.progress.fail) == ("COMPLETED", 10 * SIZE, 0)
    best = client.best(over.id)[0]
    assert [t.first_epoch for t in client.lineage(over.id, best.number)] == list(range(0, best.first_epoch + 1, 4))
