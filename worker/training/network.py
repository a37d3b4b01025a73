"""What a program trains: a network seen as weights that go in and outputs that come out.

`Epoch` and `Program` know a network by this protocol alone. `BlockNetwork` is a network written in blocks, which
computes all members at once; `keras_network.KerasNetwork` is any Keras model, one member at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from app.domain.families import Scalar
from worker.training import initializers
from worker.training.models import Architecture, Builder, architecture
from worker.training.models.augmentation import Augmentation
from worker.training.models.plain import Plain, split_flat, variables_in_order
from worker.training.models.stacked import Stacked
from worker.training.precision import cast_weights
from worker.training.randomness import uniform
from worker.training.runtime_parameters import Knobs

Floats = NDArray[np.float32]


class Network(Protocol):
    """A network of one structure, for samples of one shape.

    `member_by_member` says that `forward` takes one member alone: several are mapped over it, where it is `stackable`:
    a loop within a network can't be vectorised. `exact_batches` says that
    what a sample gives depends on its batch in ways that a weight of 0 does not undo: batches come unpadded. `columns`
    are the runtime hyperparameters that this network alone reads, in `Knobs.own`.
    """

    architecture: Architecture
    member_by_member: bool
    stackable: bool
    exact_batches: bool
    columns: tuple[str, ...]

    def fresh(self, seed: int) -> tuple[Floats, Floats]:
        """Weights, [P], and statistics, [S], of a new member: the same for the same seed."""
        ...

    def masks(self, knobs: Knobs, counts: Any, rows: int) -> list[Any]:
        """What a training pass of K members over `rows` samples draws at random, each [K, …].

        A member's numbers depend on its seed and on `counts`, [K] int64, the steps that it has behind it: not on its
        slot, the width, its neighbours or the compiler.
        """
        ...

    def forward(
        self, weights: Any, statistics: Any, x: Any, knobs: Knobs, masks: list[Any] | None, valid: Any, counts: Any
    ) -> tuple[Any, Any, Any]:
        """Outputs, [K, B, outputs], the new statistics, [K, S], and penalties of the network's own, [K] or None.

        `weights` is [K, P], `x` [K, B, …], `valid` [B] of 0 for padding and 1. `masks` and the
        members' `counts` of steps are given in training alone.
        """
        ...

    def applied(self, x: Any, hyperparameters: Mapping[str, Scalar]) -> Any:
        """What the network of one member makes of a Keras tensor of prepared features, in Keras' own layers."""
        ...

    def variables(self, model: Any) -> tuple[list[Any], list[Any]]:
        """The trained variables of a Keras model with `applied` in it, and its statistics, in our order."""
        ...


class BlockNetwork:
    """A network whose builder is written in blocks: see `models.layers`."""

    member_by_member = False
    stackable = True
    exact_batches = False
    columns: tuple[str, ...] = ()

    def __init__(
        self,
        builder: Builder,
        *,
        shape: tuple[int, ...],
        structure: Mapping[str, Scalar],
        outputs: int,
        activations: tuple[str, ...],
        xla: bool,
        precision: str = "float32",
    ) -> None:
        """Lay out the network.

        Raises:
            Refused: the network is impossible for such samples.
        """
        self.builder = builder
        self._structure, self._outputs = structure, outputs
        self._activations, self._xla, self._precision = activations, xla, precision
        self.architecture = architecture(builder, shape, structure, outputs)

    def fresh(self, seed: int) -> tuple[Floats, Floats]:
        return initializers.fresh_weights(self.architecture, seed), initializers.fresh_statistics(self.architecture)

    def masks(self, knobs: Knobs, counts: Any, rows: int) -> list[Any]:
        """A mask for each dropout, [K, rows, …] float32: 0 with the member's rate, 1/(1 - rate) otherwise."""
        shapes = [(rows, *shape) for shape in self.architecture.masks]
        sizes = [int(np.prod(shape)) for shape in shapes]
        if not sizes:
            return []
        members = knobs.seed.shape[0]

        def drawn() -> Any:
            rate = knobs.dropout[:, tf.newaxis]
            return tf.where(uniform(knobs.seed, counts, sum(sizes)) >= rate, 1.0 / (1.0 - rate), 0.0)

        masks = tf.cond(knobs.drops, drawn, lambda: tf.ones([members, sum(sizes)]))
        pieces = tf.split(masks, sizes, axis=1)
        return [tf.reshape(m, [members, *shape]) for m, shape in zip(pieces, shapes, strict=True)]

    def forward(
        self, weights: Any, statistics: Any, x: Any, knobs: Knobs, masks: list[Any] | None, valid: Any, counts: Any
    ) -> tuple[Any, Any, Any]:
        parts = pieces(weights, self.architecture.weights)
        blocks = Stacked(
            members=weights.shape[0],
            xla=self._xla,
            weights=iter(cast_weights(parts, self.architecture.weights, self._precision)),
            statistics=iter(pieces(statistics, self.architecture.statistics)),
            activations=self._activations,
            activation_index=knobs.activation,
            masks=None if masks is None else iter(masks),
            sample_weight=valid,
            augment=None
            if counts is None
            else Augmentation(knobs.augments, knobs.places, knobs.noises, knobs.seed, counts),
        )
        outputs = self.builder(blocks, x, self._structure, self._outputs)
        if not blocks.new_statistics:
            return outputs, statistics, None
        return outputs, tf.concat(blocks.new_statistics, 1), None

    def applied(self, x: Any, hyperparameters: Mapping[str, Scalar]) -> Any:
        return self.builder(Plain(hyperparameters), x, hyperparameters, self._outputs)

    def variables(self, model: Any) -> tuple[list[Any], list[Any]]:
        return variables_in_order(model)


def load(network: Network, model: Any, weights: Floats, statistics: Floats) -> None:
    """Give a Keras model that has the network in it the weights, [P], and statistics, [S], of a member.

    Raises:
        ValueError: the model is not of this architecture.
    """
    trained, kept = network.variables(model)
    layout = network.architecture
    for variables, specs, flat in ((trained, layout.weights, weights), (kept, layout.statistics, statistics)):
        for variable, value in zip(variables, split_flat(flat, specs), strict=True):
            variable.assign(value)


def pieces(flat: Any, variables: Any) -> list[Any]:
    """Variables [K, …] of a [K, P] tensor."""
    if not variables:
        return []
    split = tf.split(flat, [v.size for v in variables], axis=1)
    return [tf.reshape(piece, [flat.shape[0], *v.shape]) for piece, v in zip(split, variables, strict=True)]
