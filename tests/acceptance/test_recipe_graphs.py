"""Any model of Keras' own layers is spelled as code that builds it again; anything else is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.domain.study import DatasetSpec, EarlyStopping, TrainingSpec
from tests.acceptance.test_recipes import ACCURACY, Case, kept
from worker.training.data import DatasetInfo
from worker.training.recipe import NoRecipe
from worker.training.recipe.data import loading
from worker.training.recipe.graph import calls, constructor

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
layers = keras.layers


def built_again(model: Any) -> Any:
    """The model that the code for `model` builds, with its weights."""
    _, found = calls(model)
    lines = [f"raw = keras.Input({model.input_shape[1:]!r})"]
    lines += [f"{call.name} = {constructor(call.layer)}({call.arguments})" for call in found]
    scope: dict[str, Any] = {"keras": keras}
    exec("\n".join(lines), scope)
    again = keras.Model(scope["raw"], scope[found[-1].name])
    by_call = {call.name: call.layer for call in found}
    _, mine = calls(again)
    for call in mine:
        call.layer.set_weights(by_call[call.name].get_weights())
    return again


def residual() -> Any:
    raw = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", kernel_regularizer=keras.regularizers.L2(1e-3))(raw)
    y = layers.BatchNormalization(momentum=0.9)(x)
    y = layers.Activation("swish")(y)
    y = layers.Conv2D(4, (3, 5), padding="same", use_bias=False, kernel_initializer="he_normal")(y)
    x = layers.Add()([x, y])
    x = layers.Concatenate()([layers.GlobalMaxPooling2D()(x), layers.GlobalAveragePooling2D()(x)])
    return keras.Model(raw, layers.Dense(3, activation="softmax")(x))


def transformer() -> Any:
    raw = keras.Input((6, 4))
    x = layers.LayerNormalization(epsilon=1e-5)(raw)
    x = layers.MultiHeadAttention(num_heads=2, key_dim=3)(x, x)
    x = layers.Add()([raw, x])
    x = layers.Conv1D(5, 3, padding="causal", dilation_rate=2, activation="relu")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(raw, layers.Dense(2, kernel_constraint=keras.constraints.MaxNorm(2.0))(x))


@pytest.mark.parametrize("make", [residual, transformer])
def test_a_graph_that_branches_is_built_again(make: Any) -> None:
    model = make()
    again = built_again(model)
    x = np.random.default_rng(0).normal(size=(5, *model.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(again(x), model(x), rtol=1e-5, atol=1e-6)
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in model.layers]


def test_defaults_are_left_out_and_names_never_reach_the_code() -> None:
    raw = keras.Input((4,))
    model = keras.Model(raw, layers.Dense(3, name="x); import os; (")(raw))
    (call,) = calls(model)[1]
    assert constructor(call.layer) == "keras.layers.Dense(units=3)"


def test_what_is_no_layer_of_keras_is_refused() -> None:
    class Mine(layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 2.0

    raw = keras.Input((4,))
    with pytest.raises(NoRecipe, match=r"Mine, which is no layer of keras\.layers"):
        calls(keras.Model(raw, Mine()(raw)))
    with pytest.raises(NoRecipe, match=r"no layer of keras\.layers"):
        calls(keras.Model(raw, keras.ops.exp(raw)))
    shared = layers.Dense(4)
    with pytest.raises(NoRecipe, match="called 2 times"):
        calls(keras.Model(raw, shared(shared(raw))))


def test_a_trial_that_a_script_can_not_repeat_has_no_recipe_and_says_why(tmp_path: Path) -> None:
    stopping = EarlyStopping(metric="learning_rate", patience=3)
    case = Case(
        "mlp", DatasetSpec(name="wine"), TrainingSpec(epochs=2, early_stopping=stopping), ACCURACY, {"units": 4}
    )
    model, _, _ = kept(case, tmp_path)
    assert model.notes == []
    assert "recipe.py" not in [file.name for file in model.files]
    assert "can't follow learning_rate" in model.metadata["no_recipe"]


def test_data_that_a_script_can_not_get_come_from_a_file(tmp_path: Path) -> None:
    info = DatasetInfo('"""); import os', "classification", "vector", (3,), ("a", "b"), 4)
    code, needs_file = loading(info)
    assert needs_file
    assert info.name not in code
    scope: dict[str, Any] = {"np": np}
    exec(code, scope)
    x = np.arange(12.0).reshape(4, 3)
    np.savez(tmp_path / "data.npz", x=x, y=np.array([0, 1, 0, 1]))
    features, targets = scope["load"](tmp_path / "data.npz")
    assert (features == x).all()
    assert targets.dtype == np.int32
    np.savez(tmp_path / "other.npz", x=x[:2], y=np.array([0, 1]))
    with pytest.raises(SystemExit, match="Expected x of shape"):
        scope["load"](tmp_path / "other.npz")
