"""What a real study leaves: files beside its models, a front's alone with several objectives, a recipe, a report."""

from __future__ import annotations

import ast
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.client import FettleClient, FettleProblem, Study
from tests.acceptance.test_studies import finish, study
from tests.support.processes import wait_for

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(300)]

SPACE = {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-1, "log": True}, "units": 16}


@pytest.fixture(scope="module")
def digits(client: FettleClient) -> Study:
    """A finished study of digits with event files."""
    definition = study("results", "mlp", "digits", "val_accuracy", hyperparameters=SPACE)
    execution = {"artifacts": ["tensorboard"]}
    over, _ = finish(client, definition | {"budget": {"trials": 4}, "execution": execution})
    assert over.state == "COMPLETED"
    return over


def downloaded(client: FettleClient, study_id: str, number: int, name: str, folder: Path) -> Path:
    return client.download_artifact(study_id, number, name, folder / name)


def test_learning_curves_are_the_metrics_of_every_epoch(client: FettleClient, digits: Study, tmp_path: Path) -> None:
    best = client.best(digits.id)[0]
    text = downloaded(client, digits.id, best.number, "learning_curves.csv", tmp_path).read_text()
    rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(io.StringIO(text))]
    points = client.metrics(digits.id, best.number)
    assert [int(row.pop("epoch")) for row in rows] == [point.epoch for point in points]
    assert rows == [dict(point.metrics) for point in points]


def test_a_confusion_matrix_counts_the_validation_part(client: FettleClient, digits: Study, tmp_path: Path) -> None:
    best = client.best(digits.id)[0]
    path = downloaded(client, digits.id, best.number, "confusion_matrix.json", tmp_path)
    found = json.loads(path.read_text())
    matrix = np.array(found["matrix"])
    assert (found["part"], found["classes"]) == ("validation", list("0123456789"))
    assert matrix.sum() == found["samples"] == 360
    assert set(matrix.sum(1)) <= {35, 36, 37}  # stratified: the rows are the true classes
    assert np.trace(matrix) / 360 == pytest.approx(best.values["val_accuracy"], abs=1e-6)


def test_event_files_hold_the_metrics_by_epoch(client: FettleClient, digits: Study, tmp_path: Path) -> None:
    import tensorflow as tf

    best = client.best(digits.id)[0]
    path = downloaded(client, digits.id, best.number, "events.out.tfevents.0.fettle.v2", tmp_path)
    found: dict[str, dict[int, float]] = {}
    for event in tf.compat.v1.train.summary_iterator(str(path)):
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            found.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    points = client.metrics(digits.id, best.number)
    assert found.keys() == points[0].metrics.keys()
    for point in points:
        for name, value in point.metrics.items():
            assert found[name][point.epoch] == pytest.approx(value, rel=1e-6)


@pytest.mark.smoke
def test_the_best_trials_recipe_is_a_script(client: FettleClient, digits: Study) -> None:
    text = client.recipe(digits.id)
    ast.parse(text)
    best = client.best(digits.id)[0]
    assert f"trial {best.number}." in text
    assert text == client.recipe(digits.id, trial=best.number)
    other = next(t.number for t in client.trials(digits.id) if t.number != best.number)
    with pytest.raises(FettleProblem, match="the best one's files alone are kept"):
        client.recipe(digits.id, trial=other)


def test_a_study_that_keeps_no_models_says_why_there_is_no_recipe(client: FettleClient) -> None:
    definition = study("keeps-none", "mlp", "wine", "val_accuracy", hyperparameters=SPACE)
    over, _ = finish(client, definition | {"execution": {"keep_models": "none"}})
    assert [t.artifacts for t in client.trials(over.id)] == [[], []]
    with pytest.raises(FettleProblem, match="keeps no models"):
        client.recipe(over.id)


def test_residuals_of_a_regression_are_in_the_targets_unit(client: FettleClient, tmp_path: Path) -> None:
    over, _ = finish(client, study("residuals", "mlp", "diabetes", "val_mae", hyperparameters=SPACE))
    best = client.best(over.id)[0]
    found = json.loads(downloaded(client, over.id, best.number, "residuals.json", tmp_path).read_text())
    assert found["mae"] == pytest.approx(best.values["val_mae"], rel=1e-4)
    assert found["samples"] == len(found["predictions"]) == 89
    assert 25 <= min(p["target"] for p in found["predictions"]) < max(p["target"] for p in found["predictions"]) <= 346


def test_a_front_leaves_its_own_files_alone(
    client: FettleClient, service_url: tuple[Path, str], tmp_path: Path
) -> None:
    definition = study(
        "front", "mlp", "wine", "val_loss", hyperparameters=SPACE | {"units": {"type": "int", "low": 2, "high": 64}}
    )
    objectives = [{"metric": "val_loss"}, {"metric": "parameter_count"}]
    over, _ = finish(client, definition | {"objectives": objectives, "budget": {"trials": 20}})
    front = {t.number for t in client.best(over.id)}
    kept = {t.number for t in client.trials(over.id) if t.artifacts}
    assert 0 < len(front) < 20
    assert kept == front
    folder = service_url[0] / "data" / "artifacts" / over.id

    def on_disk() -> set[int]:
        return {int(file.parent.parent.name) for file in folder.rglob("*") if file.is_file()}

    wait_for(lambda: on_disk() == front, 30, "the superseded files' removal")
    with pytest.raises(FettleProblem, match="no single best trial"):
        client.recipe(over.id)
    assert "keras" in client.recipe(over.id, trial=min(front))


def test_a_real_studys_report_shows_its_best_trials_files(client: FettleClient, digits: Study) -> None:
    text = client.report(digits.id)
    best: Any = client.best(digits.id)[0]
    assert f"Confusion matrix of trial {best.number}" in text
    assert f"Learning curves of trial {best.number}" in text
