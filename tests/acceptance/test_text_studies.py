"""The example studies of texts beat honest baselines through the whole service, and their models take raw strings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from app.client import FettleClient
from tests.acceptance.test_text_models import predicted
from tests.support.processes import ROOT
from worker.training.data.docstrings import LIBRARIES, docstrings

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(900)]

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def texts() -> tuple[Any, Any, Any, Any]:
    """Training texts, validation texts, and the labels of both: split by scikit-learn, as the examples say."""
    features, labels = docstrings()
    split: tuple[Any, Any, Any, Any] = train_test_split(
        features, labels, test_size=0.2, random_state=0, stratify=labels
    )
    return split


@pytest.fixture(scope="module")
def baselines(texts: tuple[Any, Any, Any, Any]) -> dict[str, float]:
    """Accuracy of the largest class, and of logistic regression on counts of words: of the whole raw text."""
    train, validation, y, y_validation = texts
    counts = CountVectorizer()
    regression = LogisticRegression(max_iter=500, tol=1e-3).fit(counts.fit_transform(train), y)
    return {
        "majority": float(np.bincount(y_validation).max() / len(y_validation)),
        "bag of words": float(regression.score(counts.transform(validation), y_validation)),
    }


@pytest.mark.parametrize("name", ["docstrings-cnn", "docstrings-transformer"])
def test_an_example_beats_its_baselines_and_its_model_takes_strings_in_a_fresh_process(
    client: FettleClient, name: str, texts: tuple[Any, Any, Any, Any], baselines: dict[str, float], tmp_path: Path
) -> None:
    created = client.create_study(json.loads((EXAMPLES / f"{name}.json").read_text()))
    list(client.events(created.id))
    study = client.study(created.id)
    assert study.state == "COMPLETED", study.state_reason
    best = client.best(created.id)[0]
    accuracy = best.values["val_accuracy"]
    print(name, accuracy, baselines, [t.duration_seconds for t in client.trials(created.id)])
    assert accuracy > max(baselines.values()), baselines

    client.download_artifact(created.id, best.number, "model.keras", tmp_path / "model.keras")
    _, validation, _, labels = texts
    probabilities = predicted(tmp_path / "model.keras", [*validation, "", "☃ [UNK] \t"])
    assert probabilities.shape == (len(validation) + 2, len(LIBRARIES))
    np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=1e-4)
    assert (probabilities[:-2].argmax(1) == labels).mean() == pytest.approx(accuracy, abs=0.002)
