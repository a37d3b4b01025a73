"""How many weights the largest model of a search space has, from its hyperparameters alone."""

from __future__ import annotations

import math

from app.domain.datasets import Dataset
from app.domain.families import Scalar
from app.domain.size_texts import text_cnn_weights, text_transformer_weights
from app.domain.space import Categorical, Float, Int


def largest(value: Float | Int | Categorical | Scalar) -> float:
    """The largest number that a hyperparameter may take; 0 where it takes none."""
    if isinstance(value, Float | Int):
        return value.high
    values = value.choices if isinstance(value, Categorical) else [value]
    return max((float(v) for v in values if not isinstance(v, str)), default=0.0)


def parameter_estimate(
    family: str, hyperparameters: dict[str, Float | Int | Categorical | Scalar], dataset: Dataset
) -> int | None:
    """Weights of the largest model in the space, without batch normalisation's; None where the family is not sized."""
    high = {name: int(largest(value)) for name, value in hyperparameters.items()}
    if family == "mlp":
        return _mlp(high, dataset)
    if family == "image-cnn":
        pooled = not _may_be(hyperparameters.get("pooling"), "none")
        return _image_cnn(high, dataset.shape, dataset.outputs, pooled=pooled)
    if family == "audio-cnn":
        return _audio_cnn(hyperparameters, high, dataset)
    if family == "image-resnet":
        return _image_resnet(hyperparameters, high, dataset)
    if family == "text-cnn":
        return text_cnn_weights(high, dataset.outputs)
    if family == "text-transformer":
        learned = _may_be(hyperparameters.get("positions"), "learned")
        return text_transformer_weights(high, dataset.outputs, learned_positions=learned)
    return None


def _may_be(value: Float | Int | Categorical | Scalar | None, choice: str) -> bool:
    return value == choice or (isinstance(value, Categorical) and choice in value.choices)


def smallest(value: Float | Int | Categorical | Scalar) -> float:
    """The smallest number that a hyperparameter may take; 0 where it takes none."""
    if isinstance(value, Float | Int):
        return value.low
    values = value.choices if isinstance(value, Categorical) else [value]
    return min((float(v) for v in values if not isinstance(v, str)), default=0.0)


def _dense(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def _mlp(high: dict[str, int], dataset: Dataset) -> int:
    layers, units = high["hidden_layers"], high["units"]
    if layers == 0:
        return _dense(dataset.features, dataset.outputs)
    hidden = _dense(dataset.features, units) + (layers - 1) * _dense(units, units)
    return hidden + _dense(units, dataset.outputs)


def _image_cnn(high: dict[str, int], shape: tuple[int, ...], outputs: int, *, pooled: bool) -> int:
    height, width, channels = shape
    total = 0
    for layer in range(high["conv_layers"]):
        filters = high["filters"] * 2**layer
        total += (channels * high["kernel_size"] ** 2 + 1) * filters
        channels = filters
        if pooled:
            height, width = math.ceil(height / 2), math.ceil(width / 2)
    flat = height * width * channels
    if high["dense_units"]:
        total += _dense(flat, high["dense_units"])
        flat = high["dense_units"]
    return total + _dense(flat, outputs)


def _audio_cnn(
    hyperparameters: dict[str, Float | Int | Categorical | Scalar], high: dict[str, int], dataset: Dataset
) -> int:
    """The spectrogram with the most frames and bands, under the largest network."""
    frames = 1 + dataset.features // max(1, int(smallest(hyperparameters["frame_step"])))
    pooled = not _may_be(hyperparameters.get("pooling"), "none")
    return _image_cnn(high, (frames, high["mel_bands"], 1), dataset.outputs, pooled=pooled)


def _image_resnet(
    hyperparameters: dict[str, Float | Int | Categorical | Scalar], high: dict[str, int], dataset: Dataset
) -> int:
    """A convolution, then blocks of two, with one of size 1 beside the first block of each later stage."""
    height, width, channels = dataset.shape
    area, stride = high["kernel_size"] ** 2, max(1, int(smallest(hyperparameters["stride"])))
    total, filters = (channels * area + 1) * high["filters"], high["filters"]
    for stage in range(high["stages"]):
        wider = filters * (2 if stage else 1)
        total += (filters * area + 1) * wider + (2 * high["blocks"] - 1) * (wider * area + 1) * wider
        if stage:
            total += _dense(filters, wider)
            height, width = math.ceil(height / stride), math.ceil(width / stride)
        filters = wider
    seen = height * width * filters if _may_be(hyperparameters.get("head"), "flatten") else filters
    return total + _dense(seen, dataset.outputs)
