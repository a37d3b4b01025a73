"""A kept model of texts takes raw strings in a process that has Keras alone, and scores as its trial was told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from app.domain.study import DatasetSpec, Objective, TrainingSpec
from tests.acceptance.training_reference import stack_of
from tests.unit.conversation_channel import Supervisor
from worker.trainer.protocol import KeepModel
from worker.training.cache import ProgramCache
from worker.training.data.docstrings import LIBRARIES, docstrings
from worker.training.loop import train_stack
from worker.training.network_registry import BUILT_IN_NETWORKS

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

PREDICT = """
import json, sys
import keras, numpy as np
assert not {"worker", "app"} & {name.split(".")[0] for name in sys.modules}
model = keras.saving.load_model(sys.argv[1])
texts = json.load(open(sys.argv[2]))
print(json.dumps(model.predict(np.array(texts, dtype=object), verbose=0).tolist()))
"""


def predicted(model: Path, texts: list[str]) -> Any:
    """What the model gives for the texts in a fresh process, [n, classes]."""
    (model.parent / "texts.json").write_text(json.dumps(texts))
    command = [sys.executable, "-c", PREDICT, model.name, "texts.json"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=model.parent, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("family", "values"),
    [
        ("text-cnn", {"embedding_dim": 4, "filters": 6, "batch_norm": True, "dropout": 0.1}),
        ("text-cnn", {"embedding_dim": 4, "filters": 6, "tokens": "characters", "pooling": "average"}),
        ("text-transformer", {"width": 8, "feed_forward": 12, "l2": 1e-4, "depth": 2}),
        ("text-transformer", {"width": 8, "positions": "sinusoidal", "pooling": "max", "tokens": "pieces"}),
    ],
)
def test_a_kept_model_takes_strings_in_plain_keras_and_scores_as_reported(
    family: str, values: dict[str, Any], tmp_path: Path
) -> None:
    spec = DatasetSpec(name="docstrings", validation_fraction=0.3, test_fraction=0.3)
    shared = {"max_length": 20, "vocabulary_size": 200, "batch_size": 64, "learning_rate": 0.01}
    path = tmp_path / "model.keras"
    request = stack_of(
        family,
        spec,
        [{**shared, **values}],
        training=TrainingSpec(epochs=2),
        objectives=[Objective(metric="val_accuracy", direction="maximize")],
    )
    supervisor = Supervisor(keep=lambda rs: [KeepModel(member=0, path=str(path))])
    train_stack(request, supervisor, ProgramCache(background=False), networks=BUILT_IN_NETWORKS)
    kept = supervisor.kept[0]
    assert kept.error is None
    assert kept.metadata["classes"] == list(LIBRARIES)
    assert 0 < kept.test_metrics["test_accuracy"] <= 1

    texts, labels = docstrings()
    rest, _, y, _ = train_test_split(texts, labels, test_size=900, random_state=0, stratify=labels)
    _, validation, _, y_validation = train_test_split(rest, y, test_size=900, random_state=0, stratify=y)
    probabilities = predicted(path, [*validation, "", "☃ [UNK] \t"])
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=1e-4)
    accuracy = (probabilities[:-2].argmax(1) == y_validation).mean()
    assert accuracy == pytest.approx(supervisor.results[0].values[0], abs=0.002)
