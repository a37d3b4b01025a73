"""Any Keras model as a network that a program trains.

The model is built once, without its variables' memory; from then on it is a function of weights
(`Model.stateless_call`). What its layers draw at random is drawn here and handed in, so that a member's dropout depends
on its seed and step alone, as it does in blocks: Keras' own generators give other numbers under XLA, and can't be
vectorised. Rates of dropout and of noise may be `RuntimeRate`s: numbers of a member rather than of the graph.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from app.domain.families import Scalar
from app.domain.layers import kept_within
from app.domain.layers.table import RECURRENT
from worker.trainer.trainable import Refused
from worker.training.initializers import WEIGHTS_STREAM
from worker.training.models.layers import Architecture, VariableSpec
from worker.training.network import pieces
from worker.training.randomness import uniform
from worker.training.runtime_parameters import Knobs

Floats = NDArray[np.float32]
Shape = tuple[int, ...]
KerasBuilder = Callable[[Mapping[str, Scalar], Shape, int], Any]
"""(hyperparameters, shape of a prepared sample, outputs) → an unbuilt or built `keras.Model` that gives logits, or the
standardised value."""


class RuntimeRate(float):
    """The value of a runtime hyperparameter while a model is built: a rate that layers keep as it is.

    Raises:
        Refused: it is calculated with, and what comes out would be baked into the graph.
    """

    __slots__ = ("name",)
    name: str

    def __new__(cls, name: str) -> RuntimeRate:
        rate = super().__new__(cls, 0.5)
        rate.name = name
        return rate

    def _refuse(self, *_: object) -> Any:
        raise Refused(
            f"Expected a builder that hands {self.name!r} to layers as it is: it is a runtime hyperparameter. "
            "Received one that calculates with it: declare it as structural."
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = _refuse
    __neg__ = _refuse


DrawKind = Literal["dropout", "noise"]


@dataclass(frozen=True, slots=True)
class Draw:
    """What a layer draws for each sample: numbers of `shape`, 0 or 1/(1 - rate) each, or normal ones.

    `rate` is the share that is dropped, or the standard deviation.
    """

    layer: Any
    kind: DrawKind
    shape: Shape
    rate: float

    @property
    def size(self) -> int:
        """Numbers for a sample."""
        return math.prod(self.shape)


class KerasNetwork:
    """A Keras model of one structure.

    `builder` is called with the structural hyperparameters, and with a `RuntimeRate` for each name in `runtime`.
    """

    member_by_member = True

    def __init__(
        self,
        builder: KerasBuilder,
        *,
        shape: Shape,
        structure: Mapping[str, Scalar],
        outputs: int,
        runtime: tuple[str, ...] = (),
        optional: bool = False,
        precision: str = "float32",
    ) -> None:
        """Build the model, which computes in `precision` as under Keras' policy of that name.

        `optional` says that not every structure has a layer for each of the `runtime` rates.

        Raises:
            Refused: it is no model that can be trained here.
            Exception: whatever the builder raises.
        """
        self._builder, self._shape, self._outputs = builder, shape, outputs
        self.columns = runtime
        rates = {name: RuntimeRate(name) for name in runtime}
        self._model, self._made_by = _built(builder, {**structure, **rates}, shape, outputs, precision)
        self._trained = list(self._model.trainable_variables)
        others = list(self._model.non_trainable_variables)
        self._seeds = [v for v in others if _is_seed(v)]
        self._kept = [v for v in others if not _is_seed(v)]
        self._others = others
        for variable in (*self._trained, *self._kept):
            if variable.dtype != "float32":
                raise Refused(f"Expected float32 variables. Received: {variable.path}, {variable.dtype}")
        self._now = threading.local()
        self._draws = self._hooked_draws()
        if not optional:
            self._check_rates(runtime)
        self.stackable = not any(isinstance(layer, keras.layers.RNN) for layer in _layers(self._model))
        self.exact_batches = any(_depends_on_batch(layer) for layer in _layers(self._model))
        self.architecture = Architecture(
            weights=tuple(_spec(v) for v in self._trained),
            statistics=tuple(_spec(v) for v in self._kept),
            masks=tuple(draw.shape for draw in self._draws),
            activation_count=sum(_output_size(layer) + _kept_within(layer) for layer in _layers(self._model)),
            output=(outputs,),
        )

    def fresh(self, seed: int) -> tuple[Floats, Floats]:
        return self._values(self._trained, seed, 0), self._values(self._kept, seed, len(self._trained))

    def initializers(self, seed: int) -> list[Any]:
        """What makes the weights of `fresh`, an initializer each of the variables in order."""
        return [self._initializer(variable, seed, number) for number, variable in enumerate(self._trained)]

    def masks(self, knobs: Knobs, counts: Any, rows: int) -> list[Any]:
        """The numbers of each drawing layer, [K, rows, …] float32; then states for other generators, [K, 2] int64."""
        drawn = []
        sizes = [rows * draw.size * (2 if draw.kind == "noise" else 1) for draw in self._draws]
        members = knobs.seed.shape[0]
        numbers = tf.split(uniform(knobs.seed, counts, sum(sizes)), sizes, axis=1) if sizes else []
        for draw, mine in zip(self._draws, numbers, strict=True):
            rate = self._rate(draw, knobs)
            kept = draw.kind == "dropout"
            values = tf.where(mine >= rate, 1.0 / (1.0 - rate), 0.0) if kept else _normal(mine) * rate
            drawn.append(tf.reshape(values, [members, rows, *draw.shape]))
        drawn += [tf.stack([knobs.seed + i, counts], axis=1) for i in range(len(self._seeds))]
        return drawn

    def forward(
        self,
        weights: Any,
        statistics: Any,
        x: Any,
        knobs: Knobs,  # noqa: ARG002 - all that this network reads of them is in the masks
        masks: list[Any] | None,
        valid: Any,  # noqa: ARG002 - batches come unpadded where it matters
        counts: Any,  # noqa: ARG002
    ) -> tuple[Any, Any, Any]:
        training = masks is not None
        given = [m[0] for m in masks or ()]
        self._now.draws = dict(zip(map(id, (d.layer for d in self._draws)), given, strict=False))
        kept = dict(
            zip(map(id, self._kept), (p[0] for p in pieces(statistics, self.architecture.statistics)), strict=True)
        )
        states = given[len(self._draws) :] if training else [tf.zeros([2], tf.int64)] * len(self._seeds)
        kept.update(zip(map(id, self._seeds), states, strict=True))
        outputs, others, losses = self._model.stateless_call(
            [p[0] for p in pieces(weights, self.architecture.weights)],
            [kept[id(v)] for v in self._others],
            x[0],
            training=training,
            return_losses=True,
        )
        if training and self._kept:
            new = [tf.reshape(o, [1, -1]) for v, o in zip(self._others, others, strict=True) if not _is_seed(v)]
            statistics = tf.concat(new, 1)
        penalty = tf.add_n([tf.reshape(tf.cast(loss, tf.float32), [1]) for loss in losses]) if losses else None
        return tf.cast(outputs, tf.float32)[tf.newaxis], statistics, penalty

    def applied(self, x: Any, hyperparameters: Mapping[str, Scalar]) -> Any:
        model = self._builder(hyperparameters, self._shape, self._outputs)
        for layer in _chain(model):
            x = layer(x)
        return x

    def variables(self, model: Any) -> tuple[list[Any], list[Any]]:
        return list(model.trainable_variables), [v for v in model.non_trainable_variables if not _is_seed(v)]

    def _values(self, variables: list[Any], seed: int, first: int) -> Floats:
        """Fresh values of variables end to end, from the initializers of the layers that made them."""
        parts = [np.zeros(0, np.float32)]
        for number, variable in enumerate(variables, start=first):
            value = self._initializer(variable, seed, number)(tuple(variable.shape), dtype=variable.dtype)
            parts.append(np.asarray(value, np.float32).reshape(-1))
        return np.concatenate(parts)

    def _initializer(self, variable: Any, seed: int, number: int) -> Any:
        """What makes the first value of a variable, the one of this `number`, seeded where it draws."""
        initializer = self._made_by[id(variable)]
        if not hasattr(initializer, "seed"):
            return initializer
        initializer = copy.copy(initializer)
        initializer.seed = int(np.random.SeedSequence([seed, WEIGHTS_STREAM, number]).generate_state(1)[0] >> 1)
        return initializer

    def _rate(self, draw: Draw, knobs: Knobs) -> Any:
        """The rate of a drawing layer, a number or [K, 1]."""
        return knobs.own[draw.rate.name][:, tf.newaxis] if isinstance(draw.rate, RuntimeRate) else draw.rate

    def _hooked_draws(self) -> list[Draw]:
        """The layers that drop or add noise, each from now on by the numbers that `forward` was given."""
        draws = []
        for layer in _layers(self._model):
            draw = _draw_of(layer)
            if draw is not None:
                draws.append(draw)
                layer.call = self._hook(layer, draw.kind, gaussian=isinstance(layer, keras.layers.GaussianDropout))
        return draws

    def _hook(self, layer: Any, kind: DrawKind, *, gaussian: bool) -> Callable[..., Any]:
        def call(inputs: Any, training: bool = False) -> Any:
            if not training:
                return inputs
            mine = tf.cast(self._now.draws[id(layer)], inputs.dtype)
            if kind == "dropout":
                return inputs * mine
            return inputs * (1.0 + mine) if gaussian else inputs + mine

        return call

    def _check_rates(self, runtime: tuple[str, ...]) -> None:
        used = {draw.rate.name for draw in self._draws if isinstance(draw.rate, RuntimeRate)}
        unused = [name for name in runtime if name not in used]
        if unused:
            raise Refused(
                f"Expected a layer of dropout or noise whose rate is {unused[0]!r}, a runtime hyperparameter. "
                "Received a model with none."
            )


def _built(
    builder: KerasBuilder, hyperparameters: Mapping[str, Scalar], shape: Shape, outputs: int, precision: str
) -> tuple[Any, dict[int, Any]]:
    """The model, and by the id of each of its variables the initializer that it was made with.

    In a stateless scope Keras puts off a variable's first value, and keeps what will give it.
    """
    with _policy(precision), keras.StatelessScope():
        model = builder(hyperparameters, shape, outputs)
        if not isinstance(model, keras.Model):
            raise Refused(f"Expected a builder that returns a keras.Model. Received: {type(model).__name__}")
        given = (getattr(model, "outputs", None) or [None])[0] if model.built else None
        if given is None:
            given = model(keras.Input(shape))
        made_by = {id(v): v._initializer for v in model.variables}
    if not isinstance(given, keras.KerasTensor) or tuple(given.shape[1:]) != (outputs,):
        raise Refused(
            f"Expected a model that gives [n, {outputs}] for samples of shape {shape}. "
            f"Received: {getattr(given, 'shape', type(given).__name__)}"
        )
    if any(initializer is None for initializer in made_by.values()):
        raise Refused("Expected variables that an initializer makes. Received a model that holds values of its own.")
    return model, made_by


@contextmanager
def _policy(precision: str) -> Iterator[None]:
    """Layers that are made meanwhile compute in `precision`; Keras keeps this by thread."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _layers(model: Any) -> list[Any]:
    """All layers of a model, those within others too, without the models themselves."""
    found = model._flatten_layers(include_self=False)
    return [layer for layer in found if not isinstance(layer, keras.Model | keras.layers.InputLayer)]


def _chain(model: Any) -> list[Any]:
    """The layers of a model where each takes what the one before it gives, so that they can be taken apart; else it."""
    if not getattr(model, "_operations", None):
        return [model]
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    inputs = [layer.input for layer in layers]
    follows = all(x is before.output for x, before in zip(inputs[1:], layers[:-1], strict=True))
    return layers if follows and inputs[0] is model.inputs[0] else [model]


def _draw_of(layer: Any) -> Draw | None:
    """What a layer of dropout or noise draws; None for layers of any other kind, or whose input isn't known."""
    kinds = keras.layers
    shape = _input_shape(layer)
    if shape is None:
        return None
    if type(layer) in (kinds.Dropout, kinds.SpatialDropout1D, kinds.SpatialDropout2D, kinds.SpatialDropout3D):
        if type(layer) is not kinds.Dropout:
            shape = (*(1 for _ in shape[:-1]), shape[-1])
        elif layer.noise_shape is not None:
            return None
        return Draw(layer, "dropout", shape, layer.rate) if layer.rate > 0 else None
    if type(layer) is kinds.GaussianNoise:
        return Draw(layer, "noise", shape, layer.stddev) if layer.stddev > 0 else None
    if type(layer) is kinds.GaussianDropout and layer.rate > 0 and not isinstance(layer.rate, RuntimeRate):
        deviation = math.sqrt(layer.rate / (1.0 - layer.rate))
        return Draw(layer, "noise", shape, deviation)
    return None


def _depends_on_batch(layer: Any) -> bool:
    """Whether a layer may see more than one sample at a time: batch statistics, and code that nobody here knows."""
    known = type(layer).__module__.startswith("keras.")
    return isinstance(layer, keras.layers.BatchNormalization | keras.layers.SpectralNormalization) or not known


def _input_shape(layer: Any) -> Shape | None:
    """The shape of a sample that the layer takes; None where it takes several, or isn't called once in a graph."""
    try:
        shape = getattr(layer.input, "shape", None)
    except (AttributeError, ValueError):
        return None
    return None if shape is None or None in shape[1:] else tuple(shape[1:])


def _output_size(layer: Any) -> int:
    try:
        shape = getattr(layer.output, "shape", None)
    except (AttributeError, ValueError):
        return 0
    return 0 if shape is None else math.prod(int(n) for n in shape[1:] if n is not None)


def _kept_within(layer: Any) -> int:
    """What a recurrent layer of a model keeps of its steps; one that another runs both ways is that one's."""
    runs = (layer.forward_layer, layer.backward_layer) if isinstance(layer, keras.layers.Bidirectional) else (layer,)
    try:
        steps = layer.input.shape[1]
    except (AttributeError, ValueError, IndexError):
        return 0
    named = [(name, run) for run in runs for name in RECURRENT if type(run) is getattr(keras.layers, name)]
    return sum(kept_within(name, run.units, steps or 0) for name, run in named)


def _is_seed(variable: Any) -> bool:
    return "seed_generator" in variable.path


def _spec(variable: Any) -> VariableSpec:
    """What a variable is; whatever is no kernel is never penalised, and counts as a bias."""
    return VariableSpec("kernel" if variable.name.endswith("kernel") else "bias", tuple(variable.shape))


def _normal(uniforms: Any) -> Any:
    """Standard normal numbers, [K, n] of [K, 2n] uniform ones in [0, 1) (Box and Muller 1958)."""
    radius, angle = tf.split(uniforms, 2, axis=1)
    return tf.sqrt(-2.0 * tf.math.log(1.0 - radius)) * tf.cos(2.0 * math.pi * angle)
