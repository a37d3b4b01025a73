"""Studies of texts: the size of their networks, and heads that divide the width in some trials alone."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.checks.definition import Checked, Limits, check_definition
from app.domain.datasets import BUNDLED
from app.domain.registry import BUILT_IN
from app.domain.size import parameter_estimate
from app.domain.study import StudyDefinition


def check(family: str, **hyperparameters: Any) -> Checked:
    definition = {
        "name": "texts",
        "model": {"family": family},
        "dataset": {"name": "docstrings"},
        "hyperparameters": hyperparameters,
        "objectives": [{"metric": "val_accuracy", "direction": "maximize"}],
        "budget": {"trials": 2},
    }
    return check_definition(StudyDefinition.model_validate(definition), Limits(), families=BUILT_IN)


@pytest.mark.parametrize(
    ("family", "hyperparameters"),
    [
        ("text-cnn", {"conv_layers": 2, "dense_units": 7, "kernel_size": 4}),
        ("text-cnn", {"embedding_dim": 5, "filters": {"type": "categorical", "choices": [3, 9]}}),
        ("text-transformer", {"depth": 3, "heads": 4, "width": 16}),
        ("text-transformer", {"positions": "sinusoidal", "width": {"type": "int", "low": 8, "high": 24, "step": 8}}),
    ],
)
def test_the_estimate_is_the_count_of_the_largest_networks_weights(
    family: str, hyperparameters: dict[str, Any]
) -> None:
    pytest.importorskip("tensorflow")
    from worker.training.models import BUILDERS, architecture

    space = check(family, **hyperparameters).definition.hyperparameters
    largest = {
        n: {"filters": 9, "width": 24}[n] if not isinstance(v, (int, float, str)) else v for n, v in space.items()
    }
    counted = architecture(BUILDERS[family], (int(largest["max_length"]),), largest, 6).parameter_count
    assert parameter_estimate(family, space, BUNDLED["docstrings"]) == counted


def test_heads_that_divide_the_width_in_some_trials_are_warned_of() -> None:
    widths = {"type": "int", "low": 16, "high": 48, "step": 16}
    found = check("text-transformer", width=widths, heads={"type": "categorical", "choices": [2, 3]})
    assert not found.errors
    assert [w for w in found.warnings if "In 2 of 6 combinations heads don't divide the width" in w]
    assert not [w for w in check("text-transformer", width=widths, heads=4).warnings if "heads" in w]


def test_what_texts_are_cut_into_is_structural() -> None:
    found = check("text-cnn", learning_rate=0.01)
    assert {"tokens", "max_length", "vocabulary_size", "embedding_dim"} <= set(found.structural)
    assert {"activation", "dropout", "l2", "learning_rate"} <= set(found.runtime)
