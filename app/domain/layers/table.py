"""The Keras layers that a list may name, and the options of each: an allow-list, with nothing that runs code.

Names and defaults are Keras 3's. What is not here is not refused for being dangerous alone: `Lambda` and custom objects
are, others have no shape that can be told beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from app.domain.families.declaration import ACTIVATIONS, Hyperparameter, Scalar

OptionKind = Literal["int", "float", "bool", "choice", "pair", "sizes", "layer"]

LAYER_ACTIVATIONS = (*ACTIVATIONS, "linear", "selu", "softplus", "softsign", "leaky_relu", "hard_sigmoid", "mish")
INITIALIZERS = (
    "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform", "lecun_normal", "orthogonal",
)  # fmt: skip
LARGEST_RATE = 0.95
"""The largest share that a layer may drop."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a layer. `pair` is a whole number or two of them, `sizes` a list of them, `layer` a layer.

    `default` None means that it must be given, unless it `may_be_left_out`. A `runtime` one is a tensor of the compiled
    program where it is a hyperparameter: another value needs no other program.
    """

    name: str
    kind: OptionKind
    default: Scalar | None = None
    low: float = 1
    high: float = 1
    choices: tuple[str, ...] = ()
    runtime: bool = False
    may_be_left_out: bool = False

    @property
    def hyperparameter(self) -> Hyperparameter | None:
        """What a hyperparameter in its place may be; None where none may."""
        if self.kind in {"sizes", "layer"}:
            return None
        kind = {"int": "int", "pair": "int", "float": "float", "bool": "bool", "choice": "categorical"}[self.kind]
        return Hyperparameter(
            name=self.name,
            kind=kind,  # type: ignore[arg-type]
            default=None,
            description="",
            low=self.low,
            high=self.high,
            choices=self.choices,
            structural=not self.runtime,
        )


@dataclass(frozen=True, slots=True)
class LayerKind:
    """A layer by Keras' name. `ranks` are the numbers of axes that a sample may have before it; empty: any."""

    name: str
    options: tuple[Option, ...] = ()
    ranks: tuple[int, ...] = ()

    def option(self, name: str) -> Option | None:
        """The option of that name."""
        return next((option for option in self.options if option.name == name), None)


def _int(name: str, low: int, high: int, default: int | None = None, *, optional: bool = False) -> Option:
    return Option(name, "int", default, low, high, may_be_left_out=optional)


def _float(name: str, low: float, high: float, default: float | None = None, *, runtime: bool = False) -> Option:
    return Option(name, "float", default, low, high, runtime=runtime)


def _flag(name: str, *, default: bool) -> Option:
    return Option(name, "bool", default)


def _choice(name: str, choices: tuple[str, ...], default: str | None = None) -> Option:
    return Option(name, "choice", default, choices=choices)


_ACTIVATION = _choice("activation", LAYER_ACTIVATIONS, "linear")
_KERNELS = (_flag("use_bias", default=True), _choice("kernel_initializer", INITIALIZERS, "glorot_uniform"))
_PADDING = _choice("padding", ("valid", "same"), "valid")
_RATE = _float("rate", 0.0, LARGEST_RATE, runtime=True)


def _convolution(name: str, *, flat: bool, depthwise: bool = False, filters: bool = True) -> LayerKind:
    size: OptionKind = "int" if flat else "pair"
    padding = _choice("padding", ("valid", "same", "causal") if name == "Conv1D" else ("valid", "same"), "valid")
    options = [
        Option("kernel_size", size, None, 1, 255 if flat else 31),
        Option("strides", size, 1, 1, 64),
        padding,
        Option("dilation_rate", size, 1, 1, 64),
        _ACTIVATION,
        _flag("use_bias", default=True),
    ]
    if filters:
        options.insert(0, _int("filters", 1, 8192))
    if depthwise:
        options.append(_int("depth_multiplier", 1, 32, 1))
    else:
        options.append(_choice("kernel_initializer", INITIALIZERS, "glorot_uniform"))
    return LayerKind(name, tuple(options), (2,) if flat else (3,))


def _pooling(name: str, *, flat: bool) -> LayerKind:
    size: OptionKind = "int" if flat else "pair"
    options = (
        Option("pool_size", size, 2, 1, 256),
        Option("strides", size, None, 1, 256, may_be_left_out=True),
        _PADDING,
    )
    return LayerKind(name, options, (2,) if flat else (3,))


def _recurrent(name: str) -> LayerKind:
    options = (
        _int("units", 1, 8192),
        _choice("activation", LAYER_ACTIVATIONS, "tanh"),
        _flag("use_bias", default=True),
        _flag("return_sequences", default=False),
        _flag("go_backwards", default=False),
    )
    return LayerKind(name, options, (2,))


def _kinds() -> Iterator[LayerKind]:
    yield LayerKind("Dense", (_int("units", 1, 65_536), _ACTIVATION, *_KERNELS))
    yield _convolution("Conv1D", flat=True)
    yield _convolution("Conv2D", flat=False)
    yield _convolution("SeparableConv1D", flat=True, depthwise=True)
    yield _convolution("SeparableConv2D", flat=False, depthwise=True)
    yield _convolution("DepthwiseConv2D", flat=False, depthwise=True, filters=False)
    for kind in ("Max", "Average"):
        yield _pooling(f"{kind}Pooling1D", flat=True)
        yield _pooling(f"{kind}Pooling2D", flat=False)
        yield LayerKind(f"Global{kind}Pooling1D", (), (2,))
        yield LayerKind(f"Global{kind}Pooling2D", (), (3,))
    yield LayerKind("ZeroPadding1D", (_int("padding", 0, 256, 1),), (2,))
    yield LayerKind("ZeroPadding2D", (Option("padding", "pair", 1, 0, 256),), (3,))
    yield LayerKind("Flatten")
    yield LayerKind("Reshape", (Option("target_shape", "sizes", None, 1, 2**24),))
    yield LayerKind("RepeatVector", (_int("n", 1, 4096),), (1,))
    yield LayerKind(
        "BatchNormalization",
        (
            _float("momentum", 0.0, 0.9999, 0.99),
            _float("epsilon", 1e-12, 1.0, 1e-3),
            _flag("center", default=True),
            _flag("scale", default=True),
        ),
    )
    yield LayerKind(
        "LayerNormalization",
        (_float("epsilon", 1e-12, 1.0, 1e-3), _flag("center", default=True), _flag("scale", default=True)),
    )
    yield LayerKind("Dropout", (_RATE,))
    yield LayerKind("SpatialDropout1D", (_RATE,), (2,))
    yield LayerKind("SpatialDropout2D", (_RATE,), (3,))
    yield LayerKind("GaussianNoise", (_float("stddev", 0.0, 100.0, runtime=True),))
    yield LayerKind("GaussianDropout", (_float("rate", 0.0, LARGEST_RATE),))
    yield LayerKind("Activation", (_choice("activation", LAYER_ACTIVATIONS),))
    yield LayerKind("LeakyReLU", (_float("negative_slope", 0.0, 1.0, 0.3),))
    yield LayerKind("ELU", (_float("alpha", 0.0, 100.0, 1.0),))
    yield LayerKind("PReLU")
    yield LayerKind("Embedding", (_int("input_dim", 1, 2**24), _int("output_dim", 1, 8192)), (1,))
    for name in RECURRENT:
        yield _recurrent(name)
    yield LayerKind(
        "Bidirectional",
        (Option("of", "layer"), _choice("merge_mode", ("concat", "sum", "mul", "ave"), "concat")),
        (2,),
    )


RECURRENT = ("LSTM", "GRU", "SimpleRNN")
"""The layers that `Bidirectional` may run both ways."""
LAYERS: dict[str, LayerKind] = {kind.name: kind for kind in _kinds()}
"""The layers that a list may name."""
