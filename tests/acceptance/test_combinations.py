"""Features that meet in one study, through a real service and its worker: nothing is lost where two of them touch."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.client import FettleClient
from app.domain.study import DatasetSpec, Objective, TrainingSpec
from tests.acceptance.test_keras_builders import dropping, networks, stack
from tests.acceptance.test_studies import finish, study
from tests.acceptance.training_reference import stack_of
from tests.unit.conversation_channel import Supervisor
from worker.trainer.protocol import EpochDone, Halt, KeepModel, Resume, Stop, TakeSnapshot, TakeSnapshots
from worker.training.cache import ProgramCache
from worker.training.loop import train_stack
from worker.training.network_registry import BUILT_IN_NETWORKS

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    # Keras' own, when it saves a model.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

RATE = {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}}


def cities(folder: Path) -> Path:
    """A table with a category of which some values are rare, and a number with empty cells."""
    draw = random.Random(0)
    names = ["rome", "oslo", "lima", "bern", *(f"village-{i}" for i in range(5))]
    rows = []
    for _ in range(150):
        size = f"{draw.random():.3f}" if draw.random() < 0.9 else ""
        rows.append(f"{draw.choice(names)},{draw.randint(18, 90)},{size},{draw.choice(['yes', 'no', 'no'])}")
    path = folder / "cities.csv"
    path.write_text("\n".join(["city,age,size,moved", *rows]))
    return path


def notes(folder: Path) -> Path:
    """A table with a column of texts that tell their class."""
    draw = random.Random(0)
    words = ["good", "bad", "fine", "red", "blue", "tree", "car", "sun"]
    rows = [f"{' '.join(draw.choices(words, k=9))} {'joy' if i % 2 else 'grief'},{i % 2}" for i in range(120)]
    path = folder / "notes.csv"
    path.write_text("\n".join(["body,mood", *rows]))
    return path


def tones(folder: Path) -> Path:
    """Short recordings of three pitches."""
    noise, seconds, labels = np.random.default_rng(0), np.arange(800) / 8000, np.arange(90) % 3
    waves = [np.sin(2 * np.pi * (300 + 400 * y) * seconds) + 0.1 * noise.normal(size=800) for y in labels]
    path = folder / "tones.npz"
    np.savez(path, x=np.stack(waves).astype(np.float32), y=labels)
    return path


def downloaded(client: FettleClient, study_id: str, number: int, name: str, folder: Path) -> str:
    return client.download_artifact(study_id, number, name, folder / f"{number}-{name}").read_text()


def test_a_table_of_categories_in_folds_has_all_files_of_the_fold_that_was_kept(
    client: FettleClient, tmp_path: Path
) -> None:
    client.upload_dataset(cities(tmp_path), name="cities", target="moved")
    definition = study("cities", "mlp", "cities", "val_loss", hyperparameters={**RATE, "units": 8})
    definition["training"] = {"epochs": 4, "folds": 3, "class_weights": "balanced", "early_stopping": {"patience": 0}}
    definition |= {"execution": {"keep_models": "all", "artifacts": ["tensorboard"]}, "budget": {"trials": 3}}
    over, _ = finish(client, definition)
    assert over.state == "COMPLETED"
    for trial in client.trials(over.id):
        assert (trial.state, client.logs(over.id, trial.number)) == ("COMPLETE", "")
        files = {file.name: file.model_dump()["details"] for file in client.artifacts(over.id, trial.number)}
        assert {"model.keras", "confusion_matrix.json", "learning_curves.csv"} < files.keys()
        text = downloaded(client, over.id, trial.number, "learning_curves.csv", tmp_path)
        rows = list(csv.DictReader(io.StringIO(text)))
        selected = rows[files["learning_curves.csv"]["selected_epoch"]]
        assert int(float(selected["instance"])) == files["model.keras"]["fold"]
        assert float(selected["val_loss"]) == min(float(row["val_loss"]) for row in rows)
        found = json.loads(downloaded(client, over.id, trial.number, "confusion_matrix.json", tmp_path))
        assert found["samples"] == 50
        assert found["accuracy"] == pytest.approx(float(selected["val_accuracy"]), abs=1e-6)


def test_the_spread_over_folds_may_be_an_objective_and_its_best_trial_keeps_a_model(client: FettleClient) -> None:
    definition = study("spread", "mlp", "wine", "val_accuracy_std", hyperparameters={**RATE, "units": 8})
    definition |= {"training": {"epochs": 2, "folds": 3}, "budget": {"trials": 4}}
    definition["objectives"] = [{"metric": "val_accuracy_std", "direction": "minimize"}]
    over, _ = finish(client, definition)
    trials = list(client.trials(over.id))
    assert [t.state for t in trials] == ["COMPLETE"] * 4
    (best,) = client.best(over.id)
    assert best.values == {"val_accuracy_std": min(t.metrics["val_accuracy_std"] for t in trials if t.metrics)}
    assert "model.keras" in {file.name for file in client.artifacts(over.id, best.number)}


def test_of_trials_that_tie_the_one_with_a_model_is_the_best(client: FettleClient) -> None:
    definition = study("ties", "mlp", "wine", "parameter_count", hyperparameters={**RATE, "units": 8})
    over, events = finish(client, definition | {"training": {"epochs": 1}, "budget": {"trials": 16}})
    assert len({t.values["parameter_count"] for t in client.trials(over.id) if t.values}) == 1
    (told,) = [event["trial"] for event in events if event["type"] == "trial.best"]
    (best,) = client.best(over.id)
    assert best.number == told
    assert "model.keras" in {file.name for file in client.artifacts(over.id, best.number)}


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("family", ["text-cnn", "text-transformer", "audio-cnn", "image-resnet"])
def test_texts_recordings_and_images_of_ones_own_train_in_half_precision(
    client: FettleClient, tmp_path: Path, family: str, precision: str
) -> None:
    client.upload_dataset(notes(tmp_path), name="notes", target="mood")
    client.upload_dataset(tones(tmp_path), name="tones", input_kind="audio", sample_rate=8000)
    dataset, values = {
        "text-cnn": ("notes", {"max_length": 12, "filters": 8}),
        "text-transformer": ("notes", {"max_length": 12, "width": 8, "heads": 2, "feed_forward": 8}),
        "audio-cnn": ("tones", {"filters": 4, "conv_layers": 1, "mel_bands": 16, "frame_length": 128}),
        "image-resnet": ("digits", {"stages": 1, "blocks": 1, "filters": 4, "augment_shift": 0.1, "batch_size": 128}),
    }[family]
    definition = study(f"{family}-{precision}", family, dataset, "val_loss", hyperparameters={**RATE, **values})
    over, _ = finish(client, definition | {"training": {"epochs": 1, "precision": precision}})
    for trial in client.trials(over.id):
        assert (trial.state, client.logs(over.id, trial.number)) == ("COMPLETE", "")
        assert trial.values is not None
        assert np.isfinite(trial.values["val_loss"])


def test_a_trial_with_folds_goes_on_in_the_fold_that_it_was_stopped_in(tmp_path: Path) -> None:
    cache, path = ProgramCache(background=False), tmp_path / "stopped.npz"
    training = TrainingSpec(epochs=3, folds=3, precision="mixed_float16", class_weights="balanced")
    request = stack_of(
        "mlp",
        DatasetSpec(name="wine"),
        [{"units": 8, "learning_rate": 0.01}],
        training=training,
        objectives=[Objective(metric="val_loss")],
        judged=False,
    )
    whole = trained(cache, request)
    epochs = iter(range(1, 100))

    def stop_in_the_second_fold(_: EpochDone) -> list[Any]:
        take = TakeSnapshots(stack="stack", snapshots=[TakeSnapshot(member=0, path=str(path))])
        halt = Halt(stack="stack", stop=[Stop(member=0, reason="LEASE_LOST")])
        return [take, halt] if next(epochs) == 5 else []

    first = trained(cache, request, unasked=stop_in_the_second_fold)
    member = request.members[0].model_copy(update={"resume": [Resume(path=str(path), key="", own=True)]})
    second = trained(cache, request.model_copy(update={"members": [member]}))
    assert (second.resumed[0].epochs, second.resumed[0].problems) == (5, [])
    reports = [*first.reports[0], *second.reports[0]]
    assert [told["instance"] for told in reports] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [told["val_loss"] for told in reports] == [told["val_loss"] for told in whole.reports[0]]
    assert second.results[0].values == whole.results[0].values


@pytest.mark.parametrize("steps", [1, 2])
def test_a_plugins_recipe_is_given_where_its_layers_say_all_and_refused_where_they_do_not(
    tmp_path: Path, steps: int
) -> None:
    values = {"units": 4, "rate": 0.2, "gradient_accumulation_steps": steps}
    supervisor = Supervisor(keep=lambda results: [KeepModel(member=0, path=str(tmp_path / "model.keras"))])
    request = stack(values, training=TrainingSpec(epochs=2))
    train_stack(request, supervisor, ProgramCache(background=False), networks=networks(dropping))
    (kept,) = supervisor.kept
    assert (kept.error, kept.notes) == (None, [])
    assert ("recipe.py" in {file.name for file in kept.files}) == (steps == 1)
    assert kept.metadata.get("no_recipe", "") == (
        "" if steps == 1 else "A recipe can't repeat gradient_accumulation_steps = 2 yet."
    )


def trained(cache: ProgramCache, request: Any, **answers: Any) -> Supervisor:
    supervisor = Supervisor(judged=False, **answers)
    train_stack(request, supervisor, cache, networks=BUILT_IN_NETWORKS)
    return supervisor
