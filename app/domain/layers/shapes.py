"""What a list of layers makes of a sample: its shape after each layer, its weights, and how much it keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.layers.reading import Layer, Loc

Shape = tuple[int, ...]
Made = tuple[Shape, int]
"""A layer's output for one sample, and its weights, moving statistics included."""
GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}
"""Matrices of a recurrent layer."""


class Impossible(Exception):
    """The layers don't fit one another, or the sample; `loc` is the layer that says so."""

    def __init__(self, loc: Loc, message: str) -> None:
        super().__init__(message)
        self.loc = loc


@dataclass(frozen=True, slots=True)
class Outline:
    """What a model is like: Keras' count of parameters, the numbers that its layers give for a sample, and its output.

    `within` are the numbers that recurrent layers keep besides, of every step: training goes back through all of them.
    """

    parameters: int
    activations: int
    output: Shape
    within: int = 0


def outlined(layers: Sequence[Layer], shape: Shape, outputs: int) -> Outline:
    """The outline of a model of `layers` with an output layer of `outputs` after them, for samples of `shape`.

    Raises:
        Impossible: a layer can't take what comes before it.
    """
    parameters, activations, within = 0, 0, 0
    for layer in layers:
        if layer.kind.ranks and len(shape) not in layer.kind.ranks:
            wanted = " or ".join(map(str, layer.kind.ranks))
            raise Impossible(
                layer.loc,
                f"Expected samples of {wanted} axes before {layer.kind.name}. Received: {_shown(shape)}",
            )
        within += _within(layer, shape)
        shape, own = _RULES[layer.kind.name](layer, shape)
        parameters += own
        activations += math.prod(shape)
    features = math.prod(shape)
    return Outline(parameters + _dense(features, outputs), activations + outputs, (outputs,), within)


def kept_within(name: str, units: int, steps: int) -> int:
    """The numbers that a recurrent layer keeps of a sample until its gradient is known: its gates' of each step.

    `app.domain.memory.ACTIVATION_COPIES` of them are about what was measured (Keras 3.15, TensorFlow 2.21 on a CPU,
    1,000 steps of 256 units): 9.3 numbers a unit and step for LSTM, 9.5 for GRU, 2.0 for SimpleRNN.
    """
    return GATES[name] * units * steps


def _within(layer: Layer, shape: Shape) -> int:
    if layer.kind.name in GATES:
        return kept_within(layer.kind.name, layer.options["units"], shape[0])
    return 0 if layer.inner is None else 2 * _within(layer.inner, shape)


def _shown(shape: Shape) -> str:
    return "×".join(map(str, shape))


def _dense(inputs: int, outputs: int, *, bias: bool = True) -> int:
    return (inputs + bias) * outputs


def _same(layer: Layer, shape: Shape) -> Made:  # noqa: ARG001 - the rules have one form
    return shape, 0


def _dense_rule(layer: Layer, shape: Shape) -> Made:
    units = layer.options["units"]
    return (*shape[:-1], units), _dense(shape[-1], units, bias=layer.options["use_bias"])


def _sizes(value: Any, axes: int) -> Shape:
    return value if isinstance(value, tuple) else (value,) * axes


def _windows(layer: Layer, shape: Shape, window: Shape, strides: Shape, what: str) -> Shape:
    """How often a window fits along each of the axes before the last."""
    found = []
    for size, extent, stride in zip(shape[:-1], window, strides, strict=True):
        if layer.options.get("padding", "valid") == "valid":
            if size < extent:
                raise Impossible(
                    layer.loc,
                    f"Expected at least {_shown(window)} before the {what} of {layer.kind.name}: use a smaller one, "
                    f"or padding 'same'. Received: {_shown(shape[:-1])}",
                )
            found.append((size - extent) // stride + 1)
        else:
            found.append(math.ceil(size / stride))
    return tuple(found)


def _convolved(layer: Layer, shape: Shape) -> Shape:
    axes = len(shape) - 1
    kernel, strides = _sizes(layer.options["kernel_size"], axes), _sizes(layer.options["strides"], axes)
    dilation = _sizes(layer.options["dilation_rate"], axes)
    if max(strides) > 1 and max(dilation) > 1:
        raise Impossible(
            layer.loc, f"Expected strides or dilation_rate of 1 for {layer.kind.name}. Received: both above"
        )
    if layer.kind.name in {"DepthwiseConv2D", "SeparableConv2D"} and len(set(strides)) > 1:
        raise Impossible(layer.loc, f"Expected equal strides for {layer.kind.name}. Received: {_shown(strides)}")
    return _windows(
        layer, shape, tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)), strides, "kernel"
    )


def _convolution(layer: Layer, shape: Shape) -> Made:
    filters, area = layer.options["filters"], math.prod(_sizes(layer.options["kernel_size"], len(shape) - 1))
    return (*_convolved(layer, shape), filters), _dense(shape[-1] * area, filters, bias=layer.options["use_bias"])


def _separable(layer: Layer, shape: Shape) -> Made:
    filters, area = layer.options["filters"], math.prod(_sizes(layer.options["kernel_size"], len(shape) - 1))
    deep = shape[-1] * layer.options["depth_multiplier"]
    return (*_convolved(layer, shape), filters), area * deep + _dense(deep, filters, bias=layer.options["use_bias"])


def _depthwise(layer: Layer, shape: Shape) -> Made:
    deep = shape[-1] * layer.options["depth_multiplier"]
    area = math.prod(_sizes(layer.options["kernel_size"], len(shape) - 1))
    return (*_convolved(layer, shape), deep), (area + layer.options["use_bias"]) * deep


def _pooling(layer: Layer, shape: Shape) -> Made:
    pool = _sizes(layer.options["pool_size"], len(shape) - 1)
    strides = layer.options["strides"]
    steps = pool if strides is None else _sizes(strides, len(shape) - 1)
    return (*_windows(layer, shape, pool, steps, "pool"), shape[-1]), 0


def _global(layer: Layer, shape: Shape) -> Made:  # noqa: ARG001
    return (shape[-1],), 0


def _padded(layer: Layer, shape: Shape) -> Made:
    padding = _sizes(layer.options["padding"], len(shape) - 1)
    return (*(n + 2 * p for n, p in zip(shape[:-1], padding, strict=True)), shape[-1]), 0


def _flat(layer: Layer, shape: Shape) -> Made:  # noqa: ARG001
    return (math.prod(shape),), 0


def _reshaped(layer: Layer, shape: Shape) -> Made:
    target = tuple(layer.options["target_shape"])
    if math.prod(target) != math.prod(shape):
        raise Impossible(
            layer.loc,
            f"Expected a target_shape of {math.prod(shape)} numbers, as {_shown(shape)}. Received: {_shown(target)}",
        )
    return target, 0


def _repeated(layer: Layer, shape: Shape) -> Made:
    return (layer.options["n"], *shape), 0


def _batch_normalised(layer: Layer, shape: Shape) -> Made:
    return shape, shape[-1] * (2 + layer.options["center"] + layer.options["scale"])


def _layer_normalised(layer: Layer, shape: Shape) -> Made:
    return shape, shape[-1] * (layer.options["center"] + layer.options["scale"])


def _prelu(layer: Layer, shape: Shape) -> Made:  # noqa: ARG001
    return shape, math.prod(shape)


def _embedded(layer: Layer, shape: Shape) -> Made:
    width = layer.options["output_dim"]
    return (*shape, width), layer.options["input_dim"] * width


def _recurrent(layer: Layer, shape: Shape) -> Made:
    units, bias = layer.options["units"], layer.options["use_bias"]
    # Keras' GRU has a bias for the recurrent product of its own.
    biases = bias * (2 if layer.kind.name == "GRU" else 1)
    own = GATES[layer.kind.name] * units * (shape[-1] + units + biases)
    return ((shape[0], units) if layer.options["return_sequences"] else (units,)), own


def _both_ways(layer: Layer, shape: Shape) -> Made:
    if layer.inner is None:
        raise Impossible(layer.loc, "Expected a layer that Bidirectional runs both ways. Received: none")
    (*rest, units), own = _recurrent(layer.inner, shape)
    return (*rest, 2 * units if layer.options["merge_mode"] == "concat" else units), 2 * own


_RULES: dict[str, Callable[[Layer, Shape], Made]] = {
    "Dense": _dense_rule,
    "Conv1D": _convolution,
    "Conv2D": _convolution,
    "SeparableConv1D": _separable,
    "SeparableConv2D": _separable,
    "DepthwiseConv2D": _depthwise,
    **{f"{kind}Pooling{axes}D": _pooling for kind in ("Max", "Average") for axes in (1, 2)},
    **{f"Global{kind}Pooling{axes}D": _global for kind in ("Max", "Average") for axes in (1, 2)},
    "ZeroPadding1D": _padded,
    "ZeroPadding2D": _padded,
    "Flatten": _flat,
    "Reshape": _reshaped,
    "RepeatVector": _repeated,
    "BatchNormalization": _batch_normalised,
    "LayerNormalization": _layer_normalised,
    **dict.fromkeys(("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"), _same),
    **dict.fromkeys(("Activation", "LeakyReLU", "ELU"), _same),
    "PReLU": _prelu,
    "Embedding": _embedded,
    **dict.fromkeys(GATES, _recurrent),
    "Bidirectional": _both_ways,
}
