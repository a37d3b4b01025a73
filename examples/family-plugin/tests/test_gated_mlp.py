"""The declaration is one that Fettle takes, and what it names builds and computes."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import pytest


def test_the_declaration_is_valid_and_its_places_exist() -> None:
    from gated_mlp import PLUGIN

    family = PLUGIN.family()
    assert family.declared("width").structural
    assert not family.declared("drop").structural
    for place in (PLUGIN.builder, *(m.per_sample for m in PLUGIN.metrics)):
        module, _, name = place.partition(":")
        assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize("normalise", [True, False])
def test_the_network_gives_logits(normalise: bool) -> None:
    import numpy as np
    from gated_mlp.network import build

    chosen = {"blocks": 2, "width": 8, "gate": "sigmoid", "normalise": normalise, "drop": 0.1}
    model = build(chosen, (5,), 3)
    assert model(np.zeros((4, 5), np.float32)).shape == (4, 3)


def test_the_metrics_agree_with_a_plain_count() -> None:
    import numpy as np
    from gated_mlp import metrics

    random = np.random.default_rng(0)
    logits, classes = random.normal(size=(50, 6)).astype(np.float32), random.integers(0, 6, 50).astype(np.int32)
    best = np.argsort(-logits, 1)[:, :3]
    np.testing.assert_allclose(metrics.among_best_three(logits, classes), (best == classes[:, None]).any(1))
    named = logits.argmax(1)
    scores = []
    for c in range(6):
        right = np.sum((named == c) & (classes == c))
        scores.append(2 * right / (np.sum(named == c) + np.sum(classes == c)))
    means = metrics.f1_counts(logits, classes).numpy().mean(0, keepdims=True)
    np.testing.assert_allclose(metrics.macro_f1(means)[0], np.mean(scores), rtol=1e-6)
