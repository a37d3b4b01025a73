"""What each built-in model family accepts: hyperparameters, ranges, defaults, runtime or structural.

A *structural* hyperparameter changes shapes or the graph: another value needs another compiled program. A *runtime* one
is a tensor of a compiled program. The builders of the families live in the worker; this module is all the API needs.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

Scalar = bool | int | float | str
Kind = Literal["float", "int", "categorical", "bool"]
Task = Literal["classification", "regression"]

ACTIVATIONS = ("relu", "tanh", "sigmoid", "elu", "gelu", "swish")
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
SCHEDULES = ("constant", "exponential", "step", "cosine", "polynomial", "inverse_time")
TEST_FUNCTIONS = ("sphere", "rastrigin", "rosenbrock", "branin", "hartmann6")


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """One hyperparameter that a family declares. Bounds are inclusive; `default` None means that it must be given."""

    name: str
    kind: Kind
    default: Scalar | None
    description: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[Scalar, ...] = ()
    structural: bool = False

    def problem(self, value: object) -> str | None:
        """Why `value` is not allowed, in words, or None where it is."""
        if self.kind == "categorical":
            if value in self.choices and isinstance(value, str):
                return None
            return f"Expected one of {', '.join(map(str, self.choices))}. Received: {value!r}"
        if self.kind == "bool":
            return None if isinstance(value, bool) else f"Expected true or false. Received: {value!r}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"Expected {'a whole number' if self.kind == 'int' else 'a number'}. Received: {value!r}"
        if self.kind == "int" and not float(value).is_integer():
            return f"Expected a whole number. Received: {value!r}"
        if not math.isfinite(value) or not self.low <= value <= self.high:
            return f"Expected a number from {self.low:g} to {self.high:g}. Received: {value!r}"
        return None


@dataclass(frozen=True)
class Family:
    """A model family: its name and version, what it trains on, and its declared hyperparameters.

    `stack_members` is how many trials of one signature train together at most, `first_members` how many do before their
    program has been measured, `stackable` whether they can at all.
    `pattern` declares any number of float hyperparameters whose names match it (`x0`, `x1`, … of `function`).
    """

    name: str
    version: str
    description: str
    hyperparameters: tuple[Hyperparameter, ...]
    needs_dataset: bool = True
    tasks: tuple[Task, ...] = ("classification", "regression")
    input_kind: Literal["vector", "image", "none"] = "vector"
    stackable: bool = True
    stack_members: int = 1
    first_members: int = 1
    trained_here: bool = True
    pattern: Hyperparameter | None = None
    by_name: dict[str, Hyperparameter] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {h.name: h for h in self.hyperparameters})

    def declared(self, name: str) -> Hyperparameter | None:
        """The declaration of the hyperparameter `name`, or None where the family has none of that name."""
        if name in self.by_name:
            return self.by_name[name]
        if self.pattern is not None and re.fullmatch(self.pattern.name, name):
            return self.pattern
        return None

    def defaults(self) -> dict[str, Scalar]:
        """The default of every declared hyperparameter that has one."""
        return {h.name: h.default for h in self.hyperparameters if h.default is not None}


def _float(name: str, default: float, low: float, high: float, text: str) -> Hyperparameter:
    return Hyperparameter(name, "float", default, text, low=low, high=high)


def _int(name: str, default: int, low: int, high: int, text: str, *, structural: bool = True) -> Hyperparameter:
    return Hyperparameter(name, "int", default, text, low=low, high=high, structural=structural)


def _choice(name: str, default: str, choices: tuple[str, ...], text: str, *, structural: bool) -> Hyperparameter:
    return Hyperparameter(name, "categorical", default, text, choices=choices, structural=structural)


def _flag(name: str, text: str) -> Hyperparameter:
    return Hyperparameter(name, "bool", False, text, structural=True)


REGULARIZATION = (
    _float("l1", 0.0, 0.0, 10.0, "Penalty l1·Σ|w| over kernels, added to the loss of each batch."),
    _float("l2", 0.0, 0.0, 10.0, "Penalty l2·Σw² over kernels, added to the loss of each batch."),
    _float("dropout", 0.0, 0.0, 0.95, "Share of units dropped in training after each hidden layer."),
    _float("label_smoothing", 0.0, 0.0, 0.9, "Share of the target spread evenly over all classes."),
)

OPTIMIZATION = (
    _choice(
        "optimizer", "adam", OPTIMIZERS, "Update rule, with Keras' constants where not given here.", structural=True
    ),
    _float("momentum", 0.0, 0.0, 0.999, "Momentum of sgd and rmsprop; the others ignore it."),
    _flag("nesterov", "Nesterov's momentum for sgd; the others ignore it."),
    _float(
        "weight_decay", 0.0, 0.0, 1.0, "Decoupled decay: weights shrink by learning_rate·weight_decay at each step."
    ),
    _float("global_clipnorm", 0.0, 0.0, 1e6, "Largest global norm of the gradient; 0 leaves it alone."),
    _float("learning_rate", 1e-3, 1e-10, 100.0, "Learning rate at the start, after any warmup."),
    _choice("lr_schedule", "constant", SCHEDULES, "How the learning rate falls over the epochs.", structural=False),
    _float("decay_rate", 0.5, 0.0, 1e3, "r of the exponential, step and inverse_time schedules."),
    _float("decay_epochs", 5.0, 1e-3, 1e6, "d of the exponential, step and inverse_time schedules, in epochs."),
    _float("final_fraction", 0.0, 0.0, 1.0, "a of the cosine and polynomial schedules: final over initial rate."),
    _float("power", 1.0, 1e-3, 100.0, "p of the polynomial schedule."),
    _float(
        "warmup_epochs", 0.0, 0.0, 1e6, "Epochs over which the rate first rises linearly; below the study's epochs."
    ),
    _int("batch_size", 32, 1, 65_536, "Samples of one gradient step."),
)

MLP = Family(
    name="mlp",
    version="1",
    description="Dense layers on vectors: classification and regression of tabular data, or flattened images.",
    hyperparameters=(
        _int("hidden_layers", 2, 0, 32, "Hidden dense layers."),
        _int("units", 64, 1, 16_384, "Units of each hidden layer."),
        _choice("activation", "relu", ACTIVATIONS, "Activation after each hidden layer.", structural=False),
        _flag("batch_norm", "Batch normalisation between each hidden layer and its activation."),
        *REGULARIZATION,
        *OPTIMIZATION,
    ),
    stack_members=32,
    first_members=16,
)

IMAGE_CNN = Family(
    name="image-cnn",
    version="1",
    description="Convolutions with pooling, then a dense head, on images of shape height × width × channels.",
    hyperparameters=(
        _int("conv_layers", 2, 1, 8, "Convolutional layers; the filters double from each to the next."),
        _int("filters", 16, 1, 1_024, "Filters of the first convolution."),
        _int("kernel_size", 3, 1, 15, "Height and width of each kernel."),
        _choice("pooling", "max", ("max", "average", "none"), "2×2 pooling after each convolution.", structural=True),
        _int("dense_units", 64, 0, 16_384, "Units of the dense layer before the output; 0 leaves it out."),
        _choice("activation", "relu", ACTIVATIONS, "Activation of every hidden layer.", structural=False),
        _flag("batch_norm", "Batch normalisation between each hidden layer and its activation."),
        *REGULARIZATION,
        *OPTIMIZATION,
    ),
    tasks=("classification",),
    input_kind="image",
    stack_members=32,
    first_members=2,
)

FUNCTION = Family(
    name="function",
    version="1",
    description="Closed-form test functions without TensorFlow or data: for load tests, dashboards, integrations.",
    hyperparameters=(
        _choice("function", "sphere", TEST_FUNCTIONS, "The function whose value is reported.", structural=True),
        _float("delay_seconds", 0.0, 0.0, 3_600.0, "Seconds slept at each step (epoch)."),
    ),
    needs_dataset=False,
    tasks=("regression",),
    input_kind="none",
    stack_members=16,
    first_members=16,
    pattern=Hyperparameter(r"x(0|[1-9]\d{0,2})", "float", None, "Coordinates of the point.", low=-1e12, high=1e12),
)

FAMILIES: dict[str, Family] = {family.name: family for family in (MLP, IMAGE_CNN, FUNCTION)}
"""The built-in families by name."""

DIMENSIONS = {"branin": 2, "hartmann6": 6}
"""Coordinates that a test function takes; those not named take any number."""
