"""Large programs through a service and its worker: the defaults of a residual network, then another family."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.acceptance.conftest import running_service

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

RESNET = {
    "name": "resnet",
    "model": {"family": "image-resnet"},
    "dataset": {"name": "shapes", "validation_fraction": 0.1, "test_fraction": 0.7},
    "hyperparameters": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}, "batch_size": 256},
}
TEXT = {
    "name": "text",
    "model": {"family": "text-cnn"},
    "dataset": {"name": "docstrings", "validation_fraction": 0.1, "test_fraction": 0.4},
    "hyperparameters": {"l2": {"type": "float", "low": 1e-6, "high": 1e-4, "log": True}, "batch_size": 1024},
}
COMMON: dict[str, Any] = {
    "training": {"epochs": 3},
    "objectives": [{"metric": "val_loss"}],
    "budget": {"trials": 4},
    "execution": {"parallel_trials": 2},
}


def test_trials_of_large_programs_complete_one_family_after_another_in_one_trainer(tmp_path: Path) -> None:
    with running_service(tmp_path, f"sqlite:///{tmp_path / 'fettle.db'}") as client:
        trainers = set()
        for definition in (RESNET, TEXT):
            created = client.create_study({**definition, **COMMON})
            for _ in client.events(created.id, patience_s=300):
                trainers |= trainers_below(psutil.Process())
            ended = client.study(created.id)
            assert (ended.state, ended.progress.complete) == ("COMPLETED", 4)
            for trial in client.trials(created.id):
                assert (trial.attempt, len(client.metrics(created.id, trial.number))) == (1, 3)
        assert len(trainers) == 1


def trainers_below(process: psutil.Process) -> set[int]:
    """The process ids of the trainers that a process has started, directly or not."""
    found = set()
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "worker.trainer" in " ".join(child.cmdline()):
                found.add(child.pid)
    return found
