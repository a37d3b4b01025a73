"""Trials that are trained several times: on folds of the data and with other seeds, compared instance by instance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.client import FettleClient
from app.domain.instances import instance_of
from app.domain.study import DatasetSpec, TrainingSpec, trial_seed
from tests.acceptance.test_studies import finish, study
from tests.acceptance.training_reference import stack_of
from worker.training.data import Fold, load_split
from worker.training.network_registry import BUILT_IN_NETWORKS
from worker.training.program import Program, Variant
from worker.training.signature import structural_signature
from worker.training.slots import Slots

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(300)]

SPACE = {"units": 8, "batch_size": 32, "learning_rate": {"type": "float", "low": 1e-3, "high": 3e-2, "log": True}}


def alone(values: dict[str, Any], fold: Fold, seed: int, epochs: int) -> list[float]:
    """The validation accuracy of each epoch of one member that trains by itself, with one fold held out."""
    request = stack_of("mlp", DatasetSpec(name="wine"), [values])
    slots = Slots(Program(replace(structural_signature(request, BUILT_IN_NETWORKS), fold=fold), Variant(1, xla=False)))
    slots.reset(0, values, seed=seed, epochs=epochs)
    found = []
    for _ in range(epochs):
        metrics = slots.run_epoch([0])[0]
        assert not isinstance(metrics, Exception)
        found.append(metrics.val_score)
    return found


@pytest.mark.smoke
def test_a_trials_result_is_the_mean_over_its_folds_and_repeats(client: FettleClient) -> None:
    training = {"epochs": 4, "folds": 3, "repeats": 2}
    definition = study("folds", "mlp", "wine", "val_accuracy", training=training, hyperparameters=SPACE)
    over, events = finish(client, definition | {"budget": {"trials": 3}, "dataset": {"name": "wine"}})
    assert over.state == "COMPLETED"
    for trial in client.trials(over.id):
        curve = client.metrics(over.id, trial.number)
        assert [m.epoch for m in curve] == list(range(24))
        assert [m.metrics["instance"] for m in curve] == [e // 4 for e in range(24)]
        by_instance = [max(m.metrics["val_accuracy"] for m in curve[i : i + 4]) for i in range(0, 24, 4)]
        assert trial.values is not None
        assert trial.metrics is not None
        assert trial.values["val_accuracy"] == pytest.approx(np.mean(by_instance))
        assert trial.metrics["val_accuracy_std"] == pytest.approx(np.std(by_instance, ddof=1))
        assert trial.selected_epoch is None
    first = client.trial(over.id, 0)
    seed = trial_seed(0, 0)
    for index in (0, 1, 4):
        instance = instance_of(TrainingSpec(**training), index)
        told = [m.metrics["val_accuracy"] for m in client.metrics(over.id, 0)[4 * index : 4 * index + 4]]
        assert told == pytest.approx(alone(first.hyperparameters, Fold(instance.fold, 3), instance.seed(seed), 4))
    (best,) = client.best(over.id)
    (file,) = [f for f in client.artifacts(over.id, best.number) if f.name == "model.keras"]
    details = file.model_dump()["details"]
    curve = client.metrics(over.id, best.number)
    by_instance = [max(m.metrics["val_accuracy"] for m in curve[i : i + 4]) for i in range(0, 24, 4)]
    kept = 3 * details["repeat"] + details["fold"]
    assert by_instance[kept] == max(by_instance)
    assert events[-1]["type"] == "study.finished"


def test_wilcoxons_pruner_gives_up_trials_that_are_worse_on_the_same_folds(client: FettleClient) -> None:
    space = {**SPACE, "learning_rate": {"type": "categorical", "choices": [1e-2, 1e-7]}}
    definition = study("wilcoxon", "mlp", "wine", "val_loss", hyperparameters=space)
    definition |= {
        "training": {"epochs": 3, "folds": 5, "repeats": 2},
        "pruner": {"name": "wilcoxon", "options": {"p_threshold": 0.2}},
        "budget": {"trials": 12},
        "execution": {"parallel_trials": 1},
        "sampler": {"name": "random", "options": {"seed": 1}},
    }
    over, _ = finish(client, definition)
    trials = list(client.trials(over.id))
    good = next(t.number for t in trials if t.hyperparameters["learning_rate"] == 1e-2)
    later = [t for t in trials if t.number > good]
    assert {t.state for t in later if t.hyperparameters["learning_rate"] == 1e-7} == {"PRUNED"}
    assert all(t.state == "COMPLETE" for t in trials if t.hyperparameters["learning_rate"] == 1e-2 and t.number == good)
    for trial in later:
        if trial.state == "PRUNED":
            assert trial.epochs is not None
            assert trial.epochs < 30
            assert trial.epochs % 3 == 0, "it ended with an instance"


def test_folds_share_the_test_part_and_never_validate_on_it(client: FettleClient) -> None:
    definition = study("folds-tested", "mlp", "wine", "val_accuracy", hyperparameters=SPACE)
    definition |= {"training": {"epochs": 2, "folds": 2}, "dataset": {"name": "wine", "test_fraction": 0.25}}
    over, _ = finish(client, definition | {"budget": {"trials": 2}})
    (best,) = client.best(over.id)
    assert best.metrics is not None
    assert 0 <= best.metrics["test_accuracy"] <= 1
    sizes = [
        len(load_split(DatasetSpec(name="wine", test_fraction=0.25), "vector", {}, fold=Fold(i, 2)).test)
        for i in (0, 1)
    ]
    assert sizes == [45, 45]
