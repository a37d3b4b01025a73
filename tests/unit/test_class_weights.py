"""Weights of classes: whom a key means, and what balanced is."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from app.domain.class_weights import Classes, balanced_weights, given_weights


@pytest.mark.parametrize(
    ("key", "classes", "index"),
    [
        ("benign", ("malignant", "benign"), 1),
        ("0", ("malignant", "benign"), 0),
        ("2", ("malignant", "benign"), None),
        ("-1", ("malignant", "benign"), None),
        ("", ("malignant", "benign"), None),
        ("9" * 5000, ("malignant", "benign"), None),
        # A name comes before an index.
        ("1", ("1", "0"), 0),
    ],
)
def test_a_key_is_a_name_or_else_an_index(key: str, classes: tuple[str, ...], index: int | None) -> None:
    assert Classes(classes).index(key) == index


def test_classes_without_a_weight_have_1() -> None:
    assert given_weights({"b": 2.5, "2": 0.0}, ("a", "b", "c")) == [1.0, 2.5, 0.0]


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    y = np.repeat([0, 1, 2], [70, 20, 10])
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 2]), y=y)
    np.testing.assert_allclose(balanced_weights([70, 20, 10]), expected)
    assert balanced_weights([4, 0]) == [0.5, 0.0]
