"""The example studies of images and recordings, run whole: they beat baselines on the same split."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from app.client import FettleClient
from app.domain.study import DatasetSpec
from tests.acceptance.conftest import running_service
from tests.support.processes import ROOT
from worker.training.data import SOURCES
from worker.training.data.sources import source
from worker.training.data.split import parts_of

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FettleClient]:
    """A client to a service with one worker."""
    folder = tmp_path_factory.mktemp("service")
    with running_service(folder, f"sqlite:///{folder / 'fettle.db'}") as client:
        yield client


def raw_parts(definition: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Raw features and targets of the training and validation part, split as the worker splits them."""
    spec = DatasetSpec(**definition["dataset"])
    x, y = SOURCES[spec.name].load()
    train, validation, _ = parts_of(source(spec.name), spec, y)
    x = x.reshape(len(x), -1)
    return x[train], y[train], x[validation], y[validation]


@pytest.mark.parametrize("name", ["shapes-resnet", "spoken-digits"])
def test_an_example_beats_the_majority_class_and_logistic_regression_on_raw_features(
    client: FettleClient, name: str, tmp_path: Path
) -> None:
    import keras

    definition = json.loads((ROOT / "examples" / f"{name}.json").read_text())
    study = client.create_study(definition)
    for _ in client.events(study.id):
        pass
    over = client.study(study.id)
    assert (over.state, over.progress.complete) == ("COMPLETED", definition["budget"]["trials"])
    best = client.best(study.id)[0]

    x, y, x_val, y_val = raw_parts(definition)
    majority = (y_val == np.bincount(y).argmax()).mean()
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, tol=1e-2)).fit(x, y)
    accuracy = best.values["val_accuracy"]
    baselines = {"majority": majority, "logistic regression": regression.score(x_val, y_val)}
    print(f"{name}: {accuracy:.3f}, {baselines}")
    assert accuracy > max(baselines.values()) + 0.3

    path = tmp_path / "model.keras"
    client.download_artifact(study.id, best.number, "model.keras", path)
    model = keras.saving.load_model(path)
    predicted = model.predict(x_val.reshape(-1, *model.input_shape[1:]), verbose=0)
    assert (predicted.argmax(1) == y_val).mean() == pytest.approx(accuracy, abs=2 / len(y_val))
