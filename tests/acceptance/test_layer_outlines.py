"""What the service works out of a list of layers without Keras is what Keras makes of it."""

from __future__ import annotations

import math
import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from app.domain.layers import LAYERS, expanded, outlined, read
from worker.training.keras_network import KerasNetwork
from worker.training.models.layered import sequence

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

FLAT, SEQUENCE, IMAGE = (6,), (7, 4), (9, 8, 3)


def layer(name: str, **options: Any) -> dict[str, Any]:
    return {"layer": name, **options}


CASES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    (FLAT, layer("Dense", units=5, use_bias=False, kernel_initializer="he_normal")),
    (IMAGE, layer("Dense", units=5, activation="mish")),
    *((SEQUENCE, layer("Conv1D", filters=5, kernel_size=3, padding=p, strides=2)) for p in ("valid", "same", "causal")),
    (SEQUENCE, layer("Conv1D", filters=5, kernel_size=3, dilation_rate=2)),
    (IMAGE, layer("Conv2D", filters=5, kernel_size=[2, 3], strides=[3, 2], activation="selu")),
    (IMAGE, layer("Conv2D", filters=5, kernel_size=4, strides=3, padding="same", use_bias=False)),
    (SEQUENCE, layer("SeparableConv1D", filters=5, kernel_size=3, depth_multiplier=2)),
    (IMAGE, layer("SeparableConv2D", filters=5, kernel_size=[2, 3], strides=2, depth_multiplier=2)),
    (IMAGE, layer("DepthwiseConv2D", kernel_size=3, depth_multiplier=2, padding="same")),
    *((SEQUENCE, layer(f"{kind}Pooling1D", pool_size=3, strides=2)) for kind in ("Max", "Average")),
    *((IMAGE, layer(f"{kind}Pooling2D", pool_size=[2, 3], padding="same")) for kind in ("Max", "Average")),
    *((SEQUENCE, layer(f"Global{kind}Pooling1D")) for kind in ("Max", "Average")),
    *((IMAGE, layer(f"Global{kind}Pooling2D")) for kind in ("Max", "Average")),
    (SEQUENCE, layer("ZeroPadding1D", padding=2)),
    (IMAGE, layer("ZeroPadding2D", padding=[1, 3])),
    (IMAGE, layer("Flatten")),
    (IMAGE, layer("Reshape", target_shape=[12, 18])),
    (FLAT, layer("RepeatVector", n=4)),
    (IMAGE, layer("BatchNormalization", scale=False)),
    (IMAGE, layer("LayerNormalization", center=False)),
    (IMAGE, layer("Dropout", rate=0.5)),
    (SEQUENCE, layer("SpatialDropout1D", rate=0.5)),
    (IMAGE, layer("SpatialDropout2D", rate=0.5)),
    (IMAGE, layer("GaussianNoise", stddev=0.5)),
    (IMAGE, layer("GaussianDropout", rate=0.5)),
    (IMAGE, layer("Activation", activation="leaky_relu")),
    (IMAGE, layer("LeakyReLU", negative_slope=0.1)),
    (IMAGE, layer("ELU", alpha=0.5)),
    (IMAGE, layer("PReLU")),
    (FLAT, layer("Embedding", input_dim=11, output_dim=5)),
    *((SEQUENCE, layer(name, units=5, return_sequences=True)) for name in ("LSTM", "GRU", "SimpleRNN")),
    (SEQUENCE, layer("GRU", units=5, use_bias=False)),
    *((SEQUENCE, layer("Bidirectional", of=layer("LSTM", units=5), merge_mode=m)) for m in ("concat", "ave")),
    (SEQUENCE, layer("Bidirectional", of=layer("GRU", units=5, return_sequences=True))),
]


def test_every_layer_of_the_table_has_a_case() -> None:
    assert {case["layer"] for _, case in CASES} == set(LAYERS)


@pytest.mark.parametrize(("shape", "case"), CASES, ids=[f"{case['layer']}-{i}" for i, (_, case) in enumerate(CASES)])
def test_shapes_and_parameters_are_those_of_keras(shape: tuple[int, ...], case: dict[str, Any]) -> None:
    reading = read([case])
    assert reading.errors == []
    layers = expanded(reading.nodes, {})
    outline, model = outlined(layers, shape, 3), sequence(layers, shape, 3)
    assert outline.parameters == model.count_params()
    made = model.layers[1].output.shape[1:]
    kept = 3 + math.prod(made)
    assert (outline.activations, outline.output) == (kept, tuple(model.output_shape[1:]))


RECURRENT = [case for case in CASES if case[1]["layer"] in ("LSTM", "GRU", "SimpleRNN", "Bidirectional")]


@pytest.mark.parametrize(("shape", "case"), RECURRENT, ids=[f"{c['layer']}-{i}" for i, (_, c) in enumerate(RECURRENT)])
def test_a_recurrent_layer_keeps_all_of_its_steps(shape: tuple[int, ...], case: dict[str, Any]) -> None:
    """The service counts them before, and the trainer of the model that Keras has made."""
    layers = expanded(read([case]).nodes, {})
    inner = case.get("of", case)
    ways = 2 if "of" in case else 1
    outline = outlined(layers, shape, 3)
    assert outline.within == ways * {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}[inner["layer"]] * inner["units"] * shape[0]
    network = KerasNetwork(lambda *_: sequence(layers, shape, 3), shape=shape, structure={}, outputs=3)
    flattened = outline.activations - 3 if inner.get("return_sequences") else 0  # once more, before the output layer
    assert network.architecture.activation_count == outline.activations + outline.within + flattened
