"""Lists of layers and a plugin's family through a service and its worker: trained, saved, and loaded in plain Keras."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from app.client import FettleClient
from tests.acceptance.conftest import running_service
from tests.support.processes import ROOT, wait_for
from tests.unit.test_plugins import install

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(400)]

BROKEN = "raise RuntimeError('no licence')\n"
CODELESS = "from app.plugins import FamilyPlugin\nPLUGIN = FamilyPlugin('codeless', '1', '', builder='nowhere:build')\n"
FAILING = (
    "from app.plugins import FamilyPlugin\nPLUGIN = FamilyPlugin('failing', '1', '', builder='plugin_failing:build')\n"
    "def build(hyperparameters, shape, outputs):\n    raise ValueError('out of ideas')\n"
)


@pytest.fixture(scope="module")
def client(
    own_service_url: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory, module_patch: pytest.MonkeyPatch
) -> Iterator[FettleClient]:
    """A service whose worker has the example package, installed, and three plugins that are broken in several ways."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    example = ROOT / "examples" / "family-plugin"
    subprocess.run([*pip, "--target", str(target), str(example)], check=True, timeout=120)
    for name, code in (("broken", BROKEN), ("codeless", CODELESS), ("failing", FAILING)):
        install(target, name, code)
    paths = [str(ROOT), str(target), *filter(None, [os.environ.get("PYTHONPATH")])]
    module_patch.setenv("PYTHONPATH", os.pathsep.join(paths))
    with running_service(*own_service_url) as client:
        yield client


@pytest.fixture(scope="module")
def module_patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def finish(client: FettleClient, definition: dict[str, Any]) -> Any:
    created = client.create_study(definition)
    for _ in client.events(created.id):
        pass
    return client.study(created.id)


def example(*parts: str, **changes: Any) -> dict[str, Any]:
    definition: dict[str, Any] = json.loads(ROOT.joinpath("examples", *parts).read_text("utf-8"))
    return definition | changes


def check_best_model(client: FettleClient, study: Any, path: Path) -> None:
    """The best trial's model, loaded in plain Keras, does as well on the whole set as was reported of a part."""
    import keras

    best = client.best(study.id)[0]
    client.download_artifact(study.id, best.number, "model.keras", path)
    model = keras.saving.load_model(path)
    images, labels = load_digits(return_X_y=True)
    raw = images.reshape(-1, *model.input_shape[1:]).astype("float32")
    predicted = model.predict(raw, verbose=0)
    np.testing.assert_allclose(predicted.sum(axis=1), 1.0, rtol=1e-4)
    assert (predicted.argmax(axis=1) == labels).mean() > best.metrics["val_accuracy"] - 0.05
    assert model.count_params() - best.metrics["parameter_count"] in (0, 3)


def test_a_study_of_listed_layers_trains_and_its_best_model_loads(client: FettleClient, tmp_path: Path) -> None:
    over = finish(client, example("keras-layers.json", budget={"trials": 4}))
    assert (over.state, over.progress.complete) == ("COMPLETED", 4)
    trials = list(client.trials(over.id))
    assert all(t.values["val_accuracy"] > 0.15 for t in trials)
    check_best_model(client, over, tmp_path / "model.keras")


def test_trials_whose_layers_do_not_fit_are_refused_and_the_others_trained(client: FettleClient) -> None:
    pool = {"layer": "MaxPooling2D", "repeat": {"hyperparameter": "pools"}}
    definition = example(
        "keras-layers.json",
        name="pools",
        model={"family": "keras-layers", "layers": [pool]},
        hyperparameters={"pools": {"type": "categorical", "choices": [1, 4]}},
        sampler={"name": "grid"},
        training={"epochs": 1},
        budget={"trials": 2},
    )
    over = finish(client, definition)
    ends = {t.hyperparameters["pools"]: t for t in client.trials(over.id)}
    assert ends[1].state == "COMPLETE"
    assert (ends[4].state, ends[4].reason) == ("FAIL", "REFUSED")
    assert "model.layers.0: Expected at least 2×2" in ends[4].error["message"]


@pytest.mark.smoke
def test_a_plugins_family_trains_with_its_own_metric_as_the_objective(client: FettleClient, tmp_path: Path) -> None:
    wait_for(lambda: "gated-mlp" in {f.name for f in client.families()}, 60, "the advertised family")
    over = finish(client, example("family-plugin", "study.json", budget={"trials": 6}, training={"epochs": 4}))
    assert (over.state, over.progress.complete) == ("COMPLETED", 6)
    best = client.best(over.id)[0]
    assert best.values["val_macro_f1"] > 0.8
    assert best.metrics["val_top3"] >= best.metrics["val_accuracy"]
    first = client.metrics(over.id, best.number)[0].metrics
    assert {"top3", "val_top3", "macro_f1", "val_macro_f1", "accuracy", "loss"} <= set(first)
    gap = best.metrics["macro_f1"] - best.metrics["val_macro_f1"]
    assert best.metrics["generalization_gap"] == pytest.approx(gap)
    check_best_model(client, over, tmp_path / "model.keras")


def test_broken_plugins_harm_nobody_and_are_not_offered(
    client: FettleClient, own_service_url: tuple[Path, str]
) -> None:
    log = own_service_url[0] / "service.log"
    wait_for(lambda: log.read_text().count("plugin_not_offered") >= 2, 60, "words about broken plugins")
    assert "no licence" in log.read_text()
    [worker] = client.workers()
    wait_for(lambda: "codeless" not in client.workers()[0].families, 60, "the family to be taken back")
    assert "gated-mlp" in worker.families
    assert "broken" not in {f.name for f in client.families()}
    failing = {"name": "failing", "model": {"family": "failing"}, "hyperparameters": {}, "budget": {"trials": 1}}
    objectives = [{"metric": "val_loss"}]
    over = finish(client, example("family-plugin", "study.json", objectives=objectives, **failing))
    [trial] = client.trials(over.id)
    assert (trial.state, trial.reason) == ("FAIL", "EXCEPTION")
    assert "out of ideas" in trial.error["message"]
