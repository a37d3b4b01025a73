"""Whole studies with real Keras models through HTTP: submitted, streamed, retried, and their models loaded again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import pytest
from sklearn.datasets import load_digits

from app.client import FettleClient
from app.tuning.storage import StudyStorage
from tests.support.processes import peak_parallel, wait_for

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(300)]


def study(name: str, family: str, dataset: str, metric: str, **changes: Any) -> dict[str, Any]:
    direction = "maximize" if "accuracy" in metric else "minimize"
    body: dict[str, Any] = {
        "name": name,
        "model": {"family": family},
        "dataset": {"name": dataset},
        "training": {"epochs": 3},
        "objectives": [{"metric": metric, "direction": direction}],
        "sampler": {"name": "random"},
        "budget": {"trials": 2},
    }
    return body | changes


def finish(client: FettleClient, definition: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """The study once it is over, and all its events as the stream told them."""
    created = client.create_study(definition)
    events = [event.model_dump() for event in client.events(created.id)]
    return client.study(created.id), events


@pytest.mark.smoke
def test_trials_of_one_signature_train_together_as_wide_as_the_study_allows_and_as_they_do_alone(
    client: FettleClient,
) -> None:
    space = {
        "units": 16,
        "batch_size": {"type": "categorical", "choices": [64, 128]},
        "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-3, "log": True},
    }
    values, peaks = {}, {}
    for parallel in ("auto", 3, 1):
        definition = study(f"wide-{parallel}", "mlp", "digits", "val_loss", hyperparameters=space)
        definition |= {"budget": {"trials": 24}, "execution": {"parallel_trials": parallel, "keep_models": "none"}}
        over, events = finish(client, definition)
        assert over.progress.complete == 24
        peaks[parallel] = peak_parallel(events)
        values[parallel] = {t.number: t.values["val_loss"] for t in client.trials(over.id)}
        signatures = {e["trial"]: e["hyperparameters"]["batch_size"] for e in events if e["type"] == "trial.started"}
        assert set(signatures.values()) == {64, 128}
    assert peaks["auto"] >= 6
    assert peaks[3] <= 3
    assert peaks[1] == 1
    for number, alone in values[1].items():
        assert values["auto"][number] == pytest.approx(alone, rel=1e-4)
        assert values[3][number] == pytest.approx(alone, rel=1e-4)


@pytest.mark.smoke
def test_a_digits_study_is_streamed_without_a_gap_to_its_best_model(client: FettleClient, tmp_path: Path) -> None:
    space = {
        "units": 32,
        "activation": {"type": "categorical", "choices": ["relu", "tanh"]},
        "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True},
        "dropout": {"type": "float", "low": 0.0, "high": 0.3},
    }
    pruner = {"name": "median", "options": {"n_startup_trials": 2}}
    definition = study("digits", "mlp", "digits", "val_accuracy", hyperparameters=space, pruner=pruner)
    over, events = finish(client, definition | {"budget": {"trials": 8}, "training": {"epochs": 6}})
    assert over.state == "COMPLETED"
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "study.created"
    assert events[-1]["type"] == "study.finished"
    trials = list(client.trials(over.id))
    assert [t.state in ("COMPLETE", "PRUNED") for t in trials] == [True] * 8
    finished = sum(e["type"] == "trial.finished" for e in events)
    assert finished == 8
    best = client.best(over.id)[0]
    assert best.values["val_accuracy"] == max(t.values["val_accuracy"] for t in trials if t.state == "COMPLETE")
    points = client.metrics(over.id, best.number)
    assert [p.epoch for p in points] == list(range(6))
    assert {"loss", "val_loss", "accuracy", "val_accuracy", "learning_rate", "seconds"} <= set(points[0].metrics)
    assert points[best.selected_epoch].metrics["val_accuracy"] == best.values["val_accuracy"]
    # The model is that epoch's, takes raw features, and loads in plain Keras.
    import keras

    path = tmp_path / "model.keras"
    client.download_artifact(over.id, best.number, "model.keras", path)
    model = keras.saving.load_model(path)
    images, labels = load_digits(return_X_y=True)
    raw = images.reshape(-1, *model.input_shape[1:]).astype("float32")
    predicted = model.predict(raw, verbose=0)
    np.testing.assert_allclose(predicted.sum(axis=1), 1.0, rtol=1e-4)
    assert (predicted.argmax(axis=1) == labels).mean() > best.values["val_accuracy"] - 0.05
    kept = {t.number: [a.name for a in client.artifacts(over.id, t.number)] for t in trials if t.artifacts}
    assert kept == {best.number: ["confusion_matrix.json", "learning_curves.csv", "model.keras", "recipe.py"]}


@pytest.mark.smoke
def test_optuna_sees_the_study_that_the_service_ran(client: FettleClient, service_url: tuple[Path, str]) -> None:
    space = {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-1, "log": True}, "units": 8}
    over, _ = finish(client, study("seen-by-optuna", "mlp", "wine", "val_accuracy", hyperparameters=space))
    loaded = optuna.load_study(study_name="seen-by-optuna", storage=StudyStorage(service_url[1]))
    best = client.best(over.id)[0]
    assert loaded.best_trial.number == best.number
    assert loaded.best_value == best.values["val_accuracy"]
    assert loaded.best_params == {"learning_rate": best.sampled["learning_rate"]}
    assert [len(t.intermediate_values) for t in loaded.trials] == [3, 3]
    assert len(loaded.trials_dataframe()) == 2


@pytest.mark.parametrize(
    ("family", "dataset", "metric"),
    [("image-cnn", "digits", "val_accuracy"), ("mlp", "diabetes", "val_mae"), ("mlp", "breast-cancer", "val_accuracy")],
)
def test_each_family_and_task_trains(client: FettleClient, family: str, dataset: str, metric: str) -> None:
    fixed = {"batch_norm": True, "lr_schedule": "cosine", "optimizer": "adamw", "weight_decay": 0.01}
    fixed |= {"filters": 4, "dense_units": 16} if family == "image-cnn" else {"units": 16}
    over, _ = finish(client, study(f"{family}-{dataset}", family, dataset, metric, hyperparameters=fixed))
    assert (over.state, over.progress.complete) == ("COMPLETED", 2)
    trial = client.best(over.id)[0]
    assert {"parameter_count", "train_seconds", "generalization_gap"} <= set(trial.metrics)
    first = client.metrics(over.id, trial.number)[0].metrics["val_loss"]
    assert trial.metrics["val_loss"] < first or trial.selected_epoch == 0


def test_a_learning_rate_beyond_reason_fails_as_non_finite_with_words_in_its_log(client: FettleClient) -> None:
    fixed = {"learning_rate": 100.0, "optimizer": "sgd", "momentum": 0.99, "units": 64, "hidden_layers": 4}
    definition = study("explodes", "mlp", "diabetes", "val_loss", hyperparameters=fixed)
    over, _ = finish(client, definition | {"training": {"epochs": 30}, "budget": {"trials": 1}})
    trial = next(iter(client.trials(over.id)))
    assert (trial.state, trial.reason) == ("FAIL", "NON_FINITE")
    assert "NON_FINITE" in client.logs(over.id, trial.number)


def test_early_stopping_ends_a_trial_and_keeps_its_best_epoch(client: FettleClient) -> None:
    stopping = {"metric": "val_loss", "patience": 1, "min_delta": 0.0}
    training = {"epochs": 200, "early_stopping": stopping}
    fixed = {"learning_rate": 0.05, "units": 32}
    definition = study("stops-early", "mlp", "wine", "val_loss", hyperparameters=fixed)
    over, _ = finish(client, definition | {"training": training, "budget": {"trials": 1}})
    trial = client.best(over.id)[0]
    losses = [p.metrics["val_loss"] for p in client.metrics(over.id, trial.number)]
    assert trial.epochs == len(losses) < 200
    assert trial.selected_epoch == losses.index(min(losses))
    assert trial.values["val_loss"] == min(losses)


def test_the_same_definition_and_seed_give_the_same_trials_and_numbers(client: FettleClient) -> None:
    space = {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-1, "log": True}, "dropout": 0.2, "units": 8}
    definition = study("twin", "mlp", "wine", "val_accuracy", hyperparameters=space)
    found = []
    for i in range(2):
        over, _ = finish(client, definition | {"name": f"twin-{i}"})
        found.append([(t.sampled, t.values, t.metrics["loss"]) for t in client.trials(over.id)])
    assert found[0] == found[1]


def test_a_trainer_killed_in_mid_epoch_costs_one_attempt_of_a_real_model(client: FettleClient) -> None:
    definition = study("killed", "mlp", "digits", "val_accuracy", hyperparameters={"units": 64, "batch_size": 8})
    created = client.create_study(definition | {"training": {"epochs": 40}, "budget": {"trials": 1}})
    wait_for(
        lambda: len(client.metrics(created.id, 0)) >= 2 if _has_trial(client, created.id) else False, 120, "metrics"
    )
    os.kill(_trainer(client).pid, signal.SIGKILL)
    events = [event.model_dump() for event in client.events(created.id)]
    trial = client.trial(created.id, 0)
    assert (trial.state, trial.attempt, trial.epochs) == ("COMPLETE", 2, 40)
    assert [p.epoch for p in client.metrics(created.id, 0)] == list(range(40))
    assert sum(e["type"] == "trial.retried" for e in events) == 1
    assert peak_parallel(events) == 1


def _trainer(client: FettleClient) -> psutil.Process:
    """The trainer of the service's worker."""
    worker = int(next(w for w in client.workers() if w.state == "ACTIVE").pid)
    return next(c for c in psutil.Process(worker).children() if "worker.trainer" in " ".join(c.cmdline()))


def _has_trial(client: FettleClient, study_id: str) -> bool:
    return any(t.state == "RUNNING" for t in client.trials(study_id))


def test_cancelling_stops_a_real_epoch_loop(client: FettleClient) -> None:
    definition = study("cancelled", "mlp", "digits", "val_accuracy", hyperparameters={"units": 64, "batch_size": 8})
    created = client.create_study(definition | {"training": {"epochs": 5000}, "budget": {"trials": 1}})
    wait_for(lambda: _has_trial(client, created.id) and client.metrics(created.id, 0), 120, "metrics")
    assert client.cancel(created.id).state == "CANCELLED"
    epochs = len(client.metrics(created.id, 0))
    after, _ = finish(client, study("after-cancel", "mlp", "wine", "val_accuracy"))
    assert after.state == "COMPLETED"
    assert len(client.metrics(created.id, 0)) == epochs
    assert client.trial(created.id, 0).reason == "CANCELLED"


def test_a_held_out_test_part_is_scored_on_the_best_trial(client: FettleClient) -> None:
    dataset = {"name": "digits", "validation_fraction": 0.2, "test_fraction": 0.2}
    definition = study("tested", "mlp", "digits", "val_accuracy", hyperparameters={"units": 32})
    over, _ = finish(client, definition | {"dataset": dataset})
    best = client.best(over.id)[0]
    assert 0.5 < best.metrics["test_accuracy"] <= 1.0
