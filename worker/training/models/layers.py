"""The blocks that model builders are written in, and the factory that works out their variables.

A builder (`mlp`, `image`) names the blocks of a network once. Three factories give them a meaning:

- `Declare` (here) follows shapes alone: the variables, the dropout masks, and whether the network is possible at all.
- `plain.Plain` makes built-in Keras layers: the exported model, and the reference of the parity tests.
- `stacked.Stacked` computes on tensors with a leading axis of K members, each with its own weights and hyperparameters.

All three meet the same variables in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from app.domain.families import Scalar
from worker.trainer.trainable import Refused
from worker.training.models.sequences import DeclareSequences, SequenceBlocks
from worker.training.models.variables import Pooling, Shape, T, VariableSpec

__all__ = [
    "BATCH_NORM_EPSILON",
    "BATCH_NORM_MOMENTUM",
    "Architecture",
    "Augmented",
    "Blocks",
    "Builder",
    "Declare",
    "Pooling",
    "Shape",
    "T",
    "VariableSpec",
    "architecture",
    "strided",
]

Augmented = Literal["image", "spectrogram"]

BATCH_NORM_MOMENTUM = 0.99
"""Share of the moving statistics that a step keeps: Keras' default."""
BATCH_NORM_EPSILON = 1e-3
"""Added to variances before the square root: Keras' default."""


def strided(size: int, stride: int) -> int:
    """Places along an axis of `size` after a convolution with `stride` and SAME padding."""
    return -(-size // stride)


class Blocks(SequenceBlocks[T], Protocol[T]):
    """What a builder may use. `T` is what flows: a shape, a Keras tensor, or a stacked tensor."""

    def flatten(self, x: T) -> T:
        """All axes of a sample as one."""
        ...

    def dense(self, x: T, units: int) -> T:
        """`x·kernel + bias`, over the last axis."""
        ...

    def convolution(self, x: T, filters: int, kernel_size: int, stride: int = 1) -> T:
        """A 2-D convolution with a bias; height and width are divided by `stride` and rounded up (SAME padding)."""
        ...

    def pooling(self, x: T, kind: Pooling) -> T:
        """2×2 pooling with stride 2; an odd last row or column is left out."""
        ...

    def global_pooling(self, x: T, kind: Pooling, mask: T | None = None) -> T:
        """The maximum or average of each channel over all places of an image or a sequence.

        `mask`, of `padding_mask`, says which places of a sequence count.
        """
        ...

    def add(self, x: T, y: T) -> T:
        """The sum of two of the same shape."""
        ...

    def augmentation(self, x: T, kind: Augmented) -> T:
        """Random changes of the features in training alone, by the member's hyperparameters `augment_*`."""
        ...

    def batch_norm(self, x: T) -> T:
        """Batch normalisation over the last axis, with Keras' constants."""
        ...

    def activation(self, x: T) -> T:
        """The member's activation."""
        ...

    def dropout(self, x: T) -> T:
        """Dropout at the member's rate."""
        ...


class Builder(Protocol):
    """A family's network, from features to `outputs` logits or, with one output, the standardised value."""

    def __call__(self, blocks: Blocks[T], x: T, hyperparameters: Mapping[str, Scalar], outputs: int) -> T:
        """The network's output."""
        ...


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a network consists of: trained weights, moving statistics, and a mask for each dropout.

    Weights and statistics are in the order of Keras' `trainable_variables` and `non_trainable_variables`; `masks` are
    the shapes of a sample where dropout is applied. `activation_count` is how many numbers the layers give for a
    sample, a convolution's patches included.
    """

    weights: tuple[VariableSpec, ...]
    statistics: tuple[VariableSpec, ...]
    masks: tuple[Shape, ...]
    activation_count: int
    output: Shape

    @property
    def weight_count(self) -> int:
        """Trained numbers."""
        return sum(v.size for v in self.weights)

    @property
    def statistic_count(self) -> int:
        """Numbers in the moving statistics."""
        return sum(v.size for v in self.statistics)

    @property
    def parameter_count(self) -> int:
        """What Keras' `count_params` gives: trained weights and moving statistics."""
        return self.weight_count + self.statistic_count


@dataclass
class Declare(DeclareSequences):
    """Follows the shape of one sample through a network and writes down what it needs.

    Raises:
        Refused: the network is impossible, such as a pooling of a single row.
    """

    weights: list[VariableSpec] = field(default_factory=list)
    statistics: list[VariableSpec] = field(default_factory=list)
    masks: list[Shape] = field(default_factory=list)
    poolings: int = 0
    activations: int = 0

    def flatten(self, x: Shape) -> Shape:
        return (math.prod(x),)

    def dense(self, x: Shape, units: int) -> Shape:
        self.weights += [VariableSpec("kernel", (x[-1], units)), VariableSpec("bias", (units,))]
        self.activations += math.prod(x[:-1]) * units
        return (*x[:-1], units)

    def convolution(self, x: Shape, filters: int, kernel_size: int, stride: int = 1) -> Shape:
        kernel = VariableSpec("kernel", (kernel_size, kernel_size, x[-1], filters))
        self.weights += [kernel, VariableSpec("bias", (filters,))]
        height, width = strided(x[0], stride), strided(x[1], stride)
        # As matrix products a convolution's patches lie side by side along a row, for each row of the image.
        self.activations += height * width * filters + x[0] * width * kernel_size * x[-1]
        return (height, width, filters)

    def pooling(self, x: Shape, kind: Pooling) -> Shape:
        height, width, channels = x
        if min(height, width) < 2:
            raise Refused(
                f"Expected at least 2×2 pixels before each {kind} pooling: use fewer convolutions, or pooling none. "
                f"Received: {height}×{width} before pooling {1 + self.poolings}"
            )
        self.poolings += 1
        return (height // 2, width // 2, channels)

    def global_pooling(self, x: Shape, kind: Pooling, mask: Shape | None = None) -> Shape:  # noqa: ARG002
        return (x[-1],)

    def add(self, x: Shape, y: Shape) -> Shape:
        if x != y:
            raise ValueError(f"Expected two of the same shape. Received: {x} and {y}")
        self.activations += math.prod(x)
        return x

    def augmentation(self, x: Shape, kind: Augmented) -> Shape:  # noqa: ARG002 - no kind changes the shape
        return x

    def batch_norm(self, x: Shape) -> Shape:
        shape = (x[-1],)
        self.weights += [VariableSpec("gamma", shape), VariableSpec("beta", shape)]
        self.statistics += [VariableSpec("moving_mean", shape), VariableSpec("moving_variance", shape)]
        return x

    def activation(self, x: Shape) -> Shape:
        return x

    def dropout(self, x: Shape) -> Shape:
        self.masks.append(x)
        return x


def architecture(builder: Builder, shape: Shape, hyperparameters: Mapping[str, Scalar], outputs: int) -> Architecture:
    """What the network of `builder` consists of, for samples of `shape`.

    Raises:
        Refused: the network is impossible for such samples.
    """
    declared = Declare()
    output = builder(declared, shape, hyperparameters, outputs)
    variables = tuple(declared.weights), tuple(declared.statistics)
    return Architecture(*variables, tuple(declared.masks), declared.activations, output)
