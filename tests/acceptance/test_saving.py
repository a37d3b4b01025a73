"""What saves compute and guards against over-fitting, on a real service: determinism, test scores, memory, gaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.client import FettleClient
from tests.acceptance.conftest import running_service
from tests.acceptance.test_studies import finish, study

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(400)]

MEASURED = ("seconds", "train_seconds", "peak_memory_mb")
"""What differs from run to run whatever is done."""

SPACE = {
    "units": {"type": "categorical", "choices": [8, 16]},
    "activation": {"type": "categorical", "choices": ["relu", "tanh"]},
    "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5},
    "batch_size": 64,
}


def deterministic(pruner: str) -> dict[str, Any]:
    definition = study(f"same-{pruner}", "mlp", "digits", "val_accuracy", hyperparameters=SPACE)
    return definition | {
        "training": {"epochs": 6, "deterministic": True},
        "sampler": {"name": "tpe", "options": {"n_startup_trials": 6, "seed": 3}},
        "pruner": {"name": pruner, "options": {"n_startup_trials": 3} if pruner == "median" else {}},
        "budget": {"trials": 18},
        "execution": {"parallel_trials": 6},
    }


def run_in_fresh_service(folder: Path) -> list[Any]:
    """All that two runs must have in common, of each study; the service's data directory is a new one."""
    folder.mkdir()
    found: list[Any] = []
    with running_service(folder, f"sqlite:///{folder / 'fettle.db'}") as client:
        for pruner in ("median", "hyperband"):
            over, _ = finish(client, deterministic(pruner))
            assert over.state == "COMPLETED"
            trials = sorted(client.trials(over.id), key=lambda t: t.number)
            found.append((over.best.number, [_comparable(client, over.id, trial) for trial in trials]))
    return found


def _comparable(client: FettleClient, study_id: str, trial: Any) -> Any:
    def computed(metrics: dict[str, float] | None) -> dict[str, float]:
        return {name: value for name, value in (metrics or {}).items() if name not in MEASURED}

    curve = [(p.epoch, computed(p.metrics)) for p in client.metrics(study_id, trial.number)]
    facts = (trial.number, trial.state, trial.sampled, trial.values, trial.selected_epoch, trial.epochs)
    return (*facts, computed(trial.metrics), curve)


def test_a_deterministic_study_gives_the_same_trials_and_numbers_in_fresh_services(tmp_path: Path) -> None:
    first, second = (run_in_fresh_service(tmp_path / name) for name in ("one", "two"))
    assert first == second
    for best, trials in first:
        states = [trial[1] for trial in trials]
        assert best is not None
        assert len(states) == 18
        assert {"COMPLETE", "PRUNED"} <= set(states)


@pytest.mark.smoke
def test_the_test_part_is_told_of_the_best_trial_alone_and_with_the_end(client: FettleClient) -> None:
    dataset = {"name": "digits", "validation_fraction": 0.2, "test_fraction": 0.2}
    for keep in ("best", "none"):
        definition = study(f"tested-{keep}", "mlp", "digits", "val_accuracy", hyperparameters=SPACE)
        definition |= {"dataset": dataset, "budget": {"trials": 5}, "execution": {"keep_models": keep}}
        created = client.create_study(definition)
        kinds = []
        for event in client.events(created.id):
            kinds.append(event.type)
            if event.type == "trial.best":
                for trial in client.trials(created.id):
                    over = client.study(created.id).state == "COMPLETED"
                    assert over or not any(name.startswith("test_") for name in trial.metrics or {})
        assert kinds[-2:] == ["trial.tested", "study.finished"]
        best = client.best(created.id)[0]
        scored = [t.number for t in client.trials(created.id) if "test_accuracy" in (t.metrics or {})]
        assert scored == [best.number]
        assert 0.3 < best.metrics["test_accuracy"] <= 1.0
        files = client.artifacts(created.id, best.number)
        if keep == "none":
            assert files == []
        else:
            (model,) = [file for file in files if file.name == "model.keras"]
            assert model.details["test_metrics"]["test_accuracy"] == best.metrics["test_accuracy"]


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_a_study_in_half_precision_with_accumulation_and_weights_learns(client: FettleClient, precision: str) -> None:
    definition = study(f"half-{precision}", "mlp", "digits", "val_accuracy")
    definition["hyperparameters"] = {"units": 32, "batch_size": 16, "gradient_accumulation_steps": 2}
    definition["hyperparameters"]["learning_rate"] = {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}
    definition |= {"training": {"epochs": 5, "precision": precision, "class_weights": {"3": 2.0}}}
    over, _ = finish(client, definition)
    best = client.best(over.id)[0]
    assert best.metrics["val_accuracy"] > 0.8
    assert best.metrics["peak_memory_mb"] > 100


def test_the_gap_is_an_objective_and_a_constraint(client: FettleClient) -> None:
    definition = study("gap", "mlp", "wine", "val_loss", hyperparameters=SPACE)
    definition |= {
        "objectives": [{"metric": "val_loss"}, {"metric": "generalization_gap"}],
        "constraints": [{"metric": "generalization_gap", "max": 0.0}],
        "budget": {"trials": 8},
    }
    over, _ = finish(client, definition)
    trials = list(client.trials(over.id))
    assert [t.state for t in trials] == ["COMPLETE"] * 8
    for trial in trials:
        gap = trial.metrics["val_loss"] - trial.metrics["loss"]
        assert trial.values["generalization_gap"] == pytest.approx(gap)
        assert trial.feasible == (gap <= 0)


@pytest.mark.parametrize(
    ("metric", "dataset"),
    [
        ("val_accuracy", "wine"),
        ("accuracy", "wine"),
        ("loss", "wine"),
        ("val_mae", "diabetes"),
        ("mae", "diabetes"),
        ("learning_rate", "wine"),
    ],
)
def test_early_stopping_watches_any_metric_in_its_own_direction(
    client: FettleClient, metric: str, dataset: str
) -> None:
    objective = "val_mae" if dataset == "diabetes" else "val_accuracy"
    definition = study(
        f"stops-by-{metric}", "mlp", dataset, objective, hyperparameters={"units": 8, "learning_rate": 0.01}
    )
    stopping = {"metric": metric, "patience": 2}
    definition |= {"training": {"epochs": 60, "early_stopping": stopping}, "budget": {"trials": 1}}
    over, _ = finish(client, definition)
    trial = client.best(over.id)[0]
    sign = -1 if "accuracy" in metric else 1
    watched = [sign * p.metrics[metric] for p in client.metrics(over.id, trial.number)]
    last_best = watched.index(min(watched))
    assert trial.epochs in (last_best + 3, 60)
    values = [p.metrics[objective] for p in client.metrics(over.id, trial.number)]
    assert trial.values[objective] == (min(values) if objective == "val_mae" else max(values))


def test_a_trial_too_large_for_its_device_is_refused_in_words_before_it_trains(tmp_path: Path) -> None:
    with running_service(tmp_path, f"sqlite:///{tmp_path / 'fettle.db'}", device_memory_mb="2") as client:
        space = {"units": {"type": "categorical", "choices": [8, 4096]}, "batch_size": 32}
        definition = study("large", "mlp", "digits", "val_accuracy", hyperparameters=space)
        definition |= {"budget": {"trials": 6}, "training": {"epochs": 1}}
        memory = client.validate(definition).memory
        assert memory is not None
        assert memory["largest_trial_mb"] > 100
        over, _ = finish(client, definition)
        assert [worker.memory_mb for worker in client.workers()] == [2]
        trials = list(client.trials(over.id))
        by_units = {units: {t.state for t in trials if t.hyperparameters["units"] == units} for units in (8, 4096)}
        assert by_units == {8: {"COMPLETE"}, 4096: {"FAIL"}}
        refused = next(t for t in trials if t.state == "FAIL")
        assert refused.reason == "REFUSED"
        assert "Expected a trial that fits the 2 MB of its device" in refused.error["message"]
