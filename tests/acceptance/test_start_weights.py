"""What members start from is distributed as in Keras' own layers of the same configuration: variable by variable."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from app.domain.families import FAMILIES
from app.domain.layers.table import INITIALIZERS, LAYERS
from worker.training.keras_network import KerasNetwork
from worker.training.models import BUILDERS
from worker.training.models.layered import builder_of
from worker.training.models.plain import split_flat
from worker.training.network import BlockNetwork, Network

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

Variables = list[NDArray[np.float32]]
DRAWS = 6
"""Fresh starts, of ours and of Keras': the numbers of a variable in all of them are compared."""
DEVIATIONS = 5.0
"""By how many standard errors standard deviations may differ: by chance in one comparison of two million."""
LEAST_PROBABILITY = 1e-6
"""Of the Kolmogorov-Smirnov statistic of two samples of one distribution."""

# Family: the shape of a prepared sample, and hyperparameters that give every kind of kernel that it has.
FAMILY_CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "mlp": ((30,), {"units": 64, "hidden_layers": 2, "batch_norm": True}),
    "image-cnn": ((16, 16, 3), {"filters": 8, "conv_layers": 2, "dense_units": 32, "batch_norm": True}),
    "image-resnet": ((16, 16, 3), {"filters": 8, "stages": 2, "blocks": 1}),
    "text-cnn": ((12,), {"vocabulary_size": 200, "embedding_dim": 16, "filters": 32, "dense_units": 16}),
    "text-transformer": (
        (12,),
        {"vocabulary_size": 200, "width": 32, "heads": 4, "feed_forward": 48, "positions": "learned"},
    ),
    "audio-cnn": ((20, 16, 1), {"filters": 8, "conv_layers": 2, "dense_units": 32}),
}
WITHIN = {1: (40,), 2: (10, 24), 3: (8, 8, 16)}
"""The shape of a sample by its axes."""


def split(values: NDArray[np.float32], network: Network) -> Variables:
    return split_flat(values, network.architecture.weights)


def assert_alike(network: Network, by_keras: Callable[[], tuple[list[Any], list[Any]]]) -> None:
    """All variables of fresh members are distributed as those of fresh Keras models; constants are the same."""
    mine, own = zip(*(network.fresh(seed) for seed in range(DRAWS)), strict=True)
    ours = [np.stack(values) for values in zip(*(split(one, network) for one in mine), strict=True)]
    statistics = [split_flat(one, network.architecture.statistics) for one in own]
    keras.utils.set_random_seed(1)
    theirs: list[Variables] = []
    for _ in range(DRAWS):
        trained, kept = by_keras()
        theirs.append([v.numpy() for v in trained])
        for mine_, theirs_ in zip(statistics[0], kept, strict=True):
            np.testing.assert_array_equal(mine_, theirs_.numpy())
    assert len(ours) == len(theirs[0])
    for place, values in enumerate(ours):
        expected = np.stack([one[place] for one in theirs])
        assert values.shape == expected.shape
        what = f"variable {place} of shape {values.shape[1:]}"
        if expected.std() == 0 or len(np.unique(expected)) <= 2:  # biases, gammas; a forget gate's bias is 1
            np.testing.assert_array_equal(values, expected, err_msg=what)
            continue
        assert len({one.tobytes() for one in values}) == DRAWS, f"{what} is the same for all seeds"
        # Of n numbers the deviation has a standard error of sqrt((kurtosis - 1) / 4n) of it: 3 at most, a normal one's.
        error = np.sqrt(2 * 0.5 / values.size)
        assert abs(values.std() / expected.std() - 1.0) < DEVIATIONS * error, (what, values.std(), expected.std())
        assert abs(values.mean()) < DEVIATIONS * expected.std() / np.sqrt(values.size), what
        assert ks_2samp(values.ravel(), expected.ravel()).pvalue > LEAST_PROBABILITY, what


@pytest.mark.parametrize("family", BUILDERS)
def test_a_family_starts_from_what_kerass_layers_start_from(family: str) -> None:
    shape, chosen = FAMILY_CASES[family]
    values = FAMILIES[family].defaults() | chosen
    network = BlockNetwork(BUILDERS[family], shape=shape, structure=values, outputs=5, activations=("relu",), xla=False)
    dtype = "int32" if family.startswith("text") else "float32"

    def by_keras() -> tuple[list[Any], list[Any]]:
        features = keras.Input(shape, dtype=dtype)
        return network.variables(keras.Model(features, network.applied(features, values)))

    assert_alike(network, by_keras)


def options_of(name: str) -> dict[str, Any]:
    """The options that a layer of the table needs."""
    sizes = {"target_shape": [40], "n": 2, "activation": "tanh", "rate": 0.1, "stddev": 0.1, "output_dim": 16}
    sizes |= {"units": 16, "filters": 16, "kernel_size": 3, "input_dim": 50}
    if name == "Bidirectional":
        return {"of": {"layer": "LSTM", "units": 16}}
    needed = [o.name for o in LAYERS[name].options if o.default is None and not o.may_be_left_out]
    return {option: sizes[option] for option in needed}


def with_initializers() -> list[tuple[str, dict[str, Any]]]:
    """Every layer of the table, and those that take an initializer with each."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name, kind in LAYERS.items():
        options = options_of(name)
        found.append((name, options))
        if kind.option("kernel_initializer") is not None:
            found += [(name, {**options, "kernel_initializer": which}) for which in INITIALIZERS]
        if name in ("SeparableConv1D", "SeparableConv2D", "DepthwiseConv2D"):
            found.append((name, {**options, "depth_multiplier": 3}))
        if name == "Bidirectional":
            found += [(name, {"of": {"layer": inner, "units": 16}}) for inner in ("GRU", "SimpleRNN")]
    return found


@pytest.mark.parametrize(
    ("layer", "options"), with_initializers(), ids=lambda value: value if isinstance(value, str) else json.dumps(value)
)
def test_a_listed_layer_starts_from_what_keras_gives_it(layer: str, options: Mapping[str, Any]) -> None:
    ranks = LAYERS[layer].ranks or (1,)
    shape = (40,) if layer == "Reshape" else WITHIN[ranks[0]]
    build = builder_of(json.dumps([{"layer": layer, **options}]))
    network = KerasNetwork(build, shape=shape, structure={}, outputs=3)

    def by_keras() -> tuple[list[Any], list[Any]]:
        return network.variables(build({}, shape, 3))

    assert_alike(network, by_keras)


def test_a_plugins_layers_start_from_what_keras_gives_them() -> None:
    def build(hyperparameters: Mapping[str, Any], shape: tuple[int, ...], outputs: int) -> Any:
        features = keras.Input(shape)
        x = keras.layers.MultiHeadAttention(4, 6)(features, features)
        x = keras.layers.GroupQueryAttention(8, 4, 2)(x, x)
        x = keras.layers.EinsumDense("abc,cde->abde", (None, 4, 8), bias_axes="de")(x)
        x = keras.layers.Conv2DTranspose(8, 3, kernel_initializer="he_normal")(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(features, keras.layers.Dense(outputs, kernel_initializer="truncated_normal")(x))

    network = KerasNetwork(build, shape=(10, 24), structure={}, outputs=3)
    assert_alike(network, lambda: network.variables(build({}, (10, 24), 3)))
