"""The demo's study through HTTP against plain Optuna and `model.fit`: trials per minute and best accuracy."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

from bench.service import service
from bench.table import Row

TRIALS, EPOCHS = 60, 10
GOAL_RATIO = 10.0
GOAL_ACCURACY_LOSS = 0.005


def study(name: str, seed: int, trials: int, units: Any) -> dict[str, Any]:
    """The demo's space without pruner or early stopping: every trial trains all its epochs."""
    return {
        "name": name,
        "model": {"family": "mlp"},
        "dataset": {"name": "digits", "validation_fraction": 0.2, "split_seed": 0},
        "hyperparameters": {
            "hidden_layers": 2,
            "units": units,
            "activation": {"type": "categorical", "choices": ["relu", "tanh", "sigmoid"]},
            "l1": {"type": "float", "low": 1e-7, "high": 1e-3, "log": True},
            "l2": {"type": "float", "low": 1e-7, "high": 1e-3, "log": True},
            "dropout": {"type": "float", "low": 0.0, "high": 0.5},
            "optimizer": "adam",
            "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
            "lr_schedule": {"type": "categorical", "choices": ["constant", "exponential", "step"]},
            "decay_rate": {"type": "float", "low": 0.1, "high": 0.9, "when": {"lr_schedule": ["exponential", "step"]}},
            "decay_epochs": 5,
            "batch_size": {"type": "categorical", "choices": [32, 64, 128]},
        },
        "training": {"epochs": EPOCHS, "seed": seed},
        "objectives": [{"metric": "val_accuracy", "direction": "maximize"}],
        "sampler": {"name": "tpe", "options": {"seed": seed}},
        "budget": {"trials": trials},
    }


def plain(seed: int, trials: int, units: str) -> dict[str, Any]:
    """Trials per minute and best accuracy of the peer, in a process of its own."""
    command = [sys.executable, "-m", "bench.plain_keras", str(trials), str(EPOCHS), str(seed), units]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()
    found: dict[str, Any] = json.loads(lines[-1])
    return {"rate": 60 * found["complete"] / found["seconds"], "best": found["best"]}


def fettle(running: Any, name: str, seed: int, trials: int, units: Any) -> dict[str, Any]:
    """Trials per minute, counting those COMPLETE with all epochs alone, and best accuracy through HTTP."""
    seconds, found = running.run(study(name, seed, trials, units))
    items = running.http.get(f"/v1/studies/{found['id']}/trials", params={"state": "COMPLETE", "limit": 1000}).json()[
        "items"
    ]
    full = sum(
        len(running.http.get(f"/v1/studies/{found['id']}/trials/{t['number']}/metrics").json()["items"]) == EPOCHS
        for t in items
    )
    return {"rate": 60 * full / seconds, "best": found["best"]["values"]["val_accuracy"]}


def rows(repetitions: int, trials: int = TRIALS) -> list[Row]:
    """Fresh, warm and with units searched; each repetition on a fresh service with empty compile caches."""
    searched = {"type": "int", "low": 32, "high": 128, "step": 32}
    fresh, warm, wide, peers, best, peer_best = [], [], [], [], [], []
    for seed in range(repetitions):
        peer = plain(seed, trials, "64")
        peers.append(peer["rate"])
        peer_best.append(peer["best"])
        with service() as running:
            running.wait_for_trainer()
            first = fettle(running, "fresh", seed, trials, 64)
            fresh.append(first["rate"])
            best.append(first["best"])
            warm.append(fettle(running, "warm", seed + 100, trials, 64)["rate"])
        with service() as running:
            running.wait_for_trainer()
            wide.append(fettle(running, "searched", seed, trials, searched)["rate"])
    ratio = statistics.median(o / t for o, t in zip(fresh, peers, strict=True))
    loss = statistics.median(peer_best) - statistics.median(best)
    return [
        Row(
            "digits MLP, 60 x 10 epochs, fresh service",
            "trials/min",
            fresh,
            peers,
            f">= {GOAL_RATIO:g} x",
            ratio >= GOAL_RATIO,
        ),
        Row("the same again, warm", "trials/min", warm, peers, note="compiled programs reused"),
        Row("the demo's space, units searched, fresh", "trials/min", wide, peers, note="peer: units fixed"),
        Row(
            "best validation accuracy",
            "share",
            best,
            peer_best,
            f"lower by at most {GOAL_ACCURACY_LOSS:g}",
            loss <= GOAL_ACCURACY_LOSS,
        ),
    ]
