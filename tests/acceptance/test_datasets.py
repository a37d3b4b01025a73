"""Data of users' own, from the upload to a model that loads elsewhere and takes the raw columns."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from app.client import FettleClient
from tests.acceptance.conftest import running_service
from tests.support.data_files import csv_table, images, npz

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NUMBERS, WORDS = ("age", "months", "calls"), ("contract", "region", "autopay")
PREDICT = """
import csv, json, sys
import keras, numpy as np
model = keras.saving.load_model(sys.argv[1])
inputs, rows = json.loads(sys.argv[2]), list(csv.DictReader(open(sys.argv[3])))
rows += [dict(rows[0], contract="never seen", region="", age="")]
def cell(kind, text):
    if kind == "category":
        return text
    return {"true": 1.0, "false": 0.0, "": float("nan")}.get(text) if text in ("true", "false", "") else float(text)
def column(kind, name):
    return np.array([[cell(kind, row[name])] for row in rows], str if kind == "category" else "f4")
data = {i["input"]: column(i["type"], i["column"]) for i in inputs}
print(json.dumps(model.predict({k: __import__("tensorflow").constant(v) for k, v in data.items()}, verbose=0).tolist()))
"""


def finish(client: FettleClient, definition: dict[str, Any]) -> Any:
    study = client.create_study(definition)
    for _ in client.events(study.id):
        continue
    return client.study(study.id)


def baselines(rows: list[dict[str, str]]) -> tuple[float, float]:
    """What the most frequent class and a logistic regression on the same columns get right on a test part."""
    labels = np.array([row["left"] for row in rows])
    table = np.array([[float(r[n] or "nan") for n in NUMBERS] + [r[w] for w in WORDS] for r in rows], object)
    train, test = train_test_split(np.arange(len(rows)), test_size=160, stratify=labels, random_state=0)
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = make_column_transformer((numbers, [0, 1, 2]), (OneHotEncoder(), [3, 4, 5]))
    logistic = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(table[train], labels[train])
    majority = max((labels[test] == label).mean() for label in set(labels))
    return float(majority), float(logistic.score(table[test], labels[test]))


@pytest.mark.smoke
def test_an_uploaded_table_becomes_a_model_that_beats_the_baselines_and_takes_raw_columns(
    client: FettleClient, tmp_path: Path
) -> None:
    found = client.upload_dataset(EXAMPLES / "customers.csv", name="customers", target="left")
    definition = json.loads((EXAMPLES / "customers-mlp.json").read_text())
    over = finish(client, definition | {"budget": {"trials": 12}, "sampler": {"name": "random"}})
    assert (over.state, over.progress.complete) == ("COMPLETED", 12)
    assert over.definition["dataset"]["id"] == found.id
    best = client.best(over.id)[0]
    rows = list(csv.DictReader(io.StringIO((EXAMPLES / "customers.csv").read_text())))
    majority, logistic = baselines(rows)
    assert best.metrics["test_accuracy"] > logistic + 0.05 > majority + 0.05
    # The model, in a process that knows nothing of Fettle, on the file as it is.
    (artifact,) = [file for file in client.artifacts(over.id, best.number) if file.name == "model.keras"]
    details = artifact.model_dump()["details"]
    assert [i["column"] for i in details["inputs"]] == ["contract", "region", "age", "months", "calls", "autopay"]
    path = client.download_artifact(over.id, best.number, "model.keras", tmp_path / "model.keras")
    command = [sys.executable, "-c", PREDICT, str(path), json.dumps(details["inputs"]), str(EXAMPLES / "customers.csv")]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"KERAS_BACKEND": "tensorflow"}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    probabilities = np.array(json.loads(ran.stdout.strip().splitlines()[-1]))
    np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=1e-4)  # also of the row with unknown and empty cells
    predicted = np.array(details["classes"])[probabilities[:-1].argmax(1)]
    accuracy = (predicted == [row["left"] for row in rows]).mean()
    assert accuracy > best.values["val_accuracy"] - 0.1


def test_a_table_of_numbers_with_gaps_is_regressed(client: FettleClient, tmp_path: Path) -> None:
    draws = np.random.default_rng(1)
    a, b = draws.normal(size=300), draws.normal(size=300)
    rows = enumerate(zip(a, b, strict=True))
    lines = [f"{x:.4f},{'' if i % 11 == 5 else f'{z:.4f}'},{3 * x - z * z + 100:.4f}" for i, (x, z) in rows]
    path = tmp_path / "numbers.csv"
    path.write_text("\n".join(["a,b,y", *lines]))
    client.upload_dataset(path, name="numbers", target="y")
    definition: dict[str, Any] = {
        "name": "numbers",
        "model": {"family": "mlp"},
        "dataset": {"name": "numbers"},
        "hyperparameters": {"normalization": {"type": "categorical", "choices": ["standard", "minmax", "none"]},
                            "learning_rate": 0.01},
        "training": {"epochs": 40},
        "objectives": [{"metric": "val_mae"}],
        "sampler": {"name": "grid"},
        "budget": {"trials": 3},
    }  # fmt: skip
    over = finish(client, definition)
    assert over.progress.complete == 3
    best = client.best(over.id)[0]
    assert best.values["val_mae"] < 0.6  # the targets' own mean misses by 2.6
    client.download_artifact(over.id, best.number, "model.keras", tmp_path / "model.keras")
    import keras

    model = keras.saving.load_model(tmp_path / "model.keras")
    given = np.array([[1.0, 0.0], [1.0, np.nan]], np.float32)
    predicted = model.predict(given, verbose=0)
    assert abs(predicted[0, 0] - 103) < 1.5
    assert np.isfinite(predicted).all()


def test_uploaded_images_train_a_cnn_and_an_mlp(client: FettleClient, tmp_path: Path) -> None:
    path = tmp_path / "sides.npz"
    path.write_bytes(npz(**images(80)))
    client.upload_dataset(path, name="sides")
    for family in ("image-cnn", "mlp"):
        fixed = {"learning_rate": 0.01, **({"filters": 4, "dense_units": 8} if family == "image-cnn" else {})}
        over = finish(
            client,
            {
                "name": f"sides-{family}",
                "model": {"family": family},
                "dataset": {"name": "sides", "test_fraction": 0.2},
                "hyperparameters": fixed,
                "training": {"epochs": 8},
                "objectives": [{"metric": "val_accuracy", "direction": "maximize"}],
                "budget": {"trials": 1},
            },
        )
        best = client.best(over.id)[0]
        assert min(best.values["val_accuracy"], best.metrics["test_accuracy"]) > 0.9


def small(name: str, dataset: str) -> dict[str, Any]:
    objectives = [{"metric": "val_accuracy", "direction": "maximize"}]
    definition = {"name": name, "model": {"family": "mlp"}, "dataset": {"name": dataset}, "objectives": objectives}
    return definition | {"training": {"epochs": 1}, "hyperparameters": {"units": 4}, "budget": {"trials": 1}}


def test_a_registered_file_trains_until_it_is_changed_and_what_is_missing_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    root, url = tmp_path / "root", f"sqlite:///{tmp_path / 'fettle.db'}"
    root.mkdir()
    (root / "a.csv").write_bytes(csv_table())
    with running_service(tmp_path, url, dataset_roots=f"file://{root}") as client:
        for name in ("mine", "changed"):
            client.register_dataset(f"file://{root}/a.csv", name=name, target="churned")
        assert finish(client, small("as-it-was", "mine")).progress.complete == 1
        (root / "a.csv").write_bytes(csv_table(61))
        over = finish(client, small("as-it-is", "changed"))
        trial = next(iter(client.trials(over.id)))
        assert (trial.state, trial.reason) == ("FAIL", "REFUSED")
        assert "changed since" in trial.error["message"]
        client.upload_dataset(EXAMPLES / "customers.csv", name="lost", target="left")
        (file,) = (tmp_path / "data" / "datasets").rglob("*.npz")
        file.unlink()
        over = finish(client, small("without-file", "lost"))
        trial = next(iter(client.trials(over.id)))
        assert (trial.state, trial.reason) == ("FAIL", "REFUSED")
        assert "could not be fetched" in trial.error["message"]
        over = finish(client, small("not-provided", "mnist"))
        trial = next(iter(client.trials(over.id)))
        assert (trial.state, trial.reason) == ("FAIL", "REFUSED")
        assert f"mnist.npz of the data set 'mnist' in {tmp_path}/keras/datasets" in trial.error["message"]
        (tmp_path / "keras" / "datasets").mkdir(parents=True)
        x, y = np.zeros((60, 28, 28), np.uint8), np.arange(60, dtype=np.uint8) % 10
        arrays = {"x_train": x[:40], "y_train": y[:40], "x_test": x[40:], "y_test": y[40:]}
        (tmp_path / "keras" / "datasets" / "mnist.npz").write_bytes(npz(**arrays))
        assert finish(client, small("provided", "mnist")).progress.complete == 1


def test_a_column_that_only_held_out_rows_vary_in_is_told_at_the_study_and_spoils_no_loss(
    client: FettleClient, tmp_path: Path
) -> None:
    path = tmp_path / "rare.csv"
    # One row in 200 differs: whichever part it falls into, it is in one fold's training part or another's validation.
    rows = [f"{i % 17},{'1e6' if i == 7 else '2.5'},{('no', 'yes')[i % 17 > 8]}" for i in range(200)]
    path.write_text("\n".join(["size,rare,large", *rows]))
    client.upload_dataset(path, name="rare", target="large")
    study = client.create_study(
        {
            "name": "rare",
            "model": {"family": "mlp"},
            "dataset": {"name": "rare"},
            "hyperparameters": {"units": 8},
            "training": {"epochs": 2, "folds": 4},
            "objectives": [{"metric": "val_loss", "direction": "minimize"}],
            "budget": {"trials": 1},
        }
    )
    list(client.events(study.id))
    over = client.study(study.id)
    assert over.state == "COMPLETED", over.state_reason
    assert [(w["code"], w["loc"]) for w in over.warnings] == [("CONSTANT_COLUMN", ["dataset"])]
    assert over.warnings[0]["message"].endswith(": rare.")
    assert client.best(study.id)[0].values["val_loss"] < 10
