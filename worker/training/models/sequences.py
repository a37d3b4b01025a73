"""The blocks of networks on sequences, such as texts: what they are, and what variables they need.

A sequence of a sample is L token numbers, of which 0 is padding, and then L vectors: [L, width].
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

from worker.trainer.trainable import Refused
from worker.training.models.variables import Shape, T, VariableSpec

Positions = Literal["learned", "sinusoidal", "none"]

LAYER_NORM_EPSILON = 1e-3
"""Added to variances before the square root: Keras' default."""
LONGEST_WAVE = 10_000.0
"""Of the sinusoids of positions, over 2π (Vaswani et al. 2017)."""


class SequenceBlocks(Protocol[T]):
    """What a builder may use on sequences. `T` is what flows: a shape, a Keras tensor, or a stacked tensor."""

    def padding_mask(self, tokens: T) -> T:
        """Which places of a sequence hold a token; the first always does, so that an empty text has one."""
        ...

    def embedding(self, tokens: T, vocabulary: int, width: int) -> T:
        """The vector of each token out of a trained table of `vocabulary` rows."""
        ...

    def positions(self, x: T, kind: Positions) -> T:
        """Vectors with their places made known: by a trained vector a place, or by sinusoids (see `sinusoids`)."""
        ...

    def masked(self, x: T, mask: T) -> T:
        """Zeros in the places of padding."""
        ...

    def convolution_1d(self, x: T, filters: int, kernel_size: int) -> T:
        """A convolution along the sequence that keeps its length (SAME padding), and a bias."""
        ...

    def attention(self, x: T, heads: int, mask: T) -> T:
        """Self-attention of `heads` heads that sees no padding (Vaswani et al. 2017), as Keras' layer computes it."""
        ...

    def layer_norm(self, x: T) -> T:
        """Layer normalisation over the last axis, with Keras' constants."""
        ...


def sinusoids(length: int, width: int) -> list[list[float]]:
    """The position vectors of Vaswani et al. 2017, [length, width]: sines in the even columns, cosines in the odd."""
    frequencies = [LONGEST_WAVE ** (-(i // 2 * 2) / width) for i in range(width)]
    waves = math.sin, math.cos
    return [[waves[i % 2](place * f) for i, f in enumerate(frequencies)] for place in range(length)]


class DeclareSequences:
    """Follows shapes alone.

    Raises:
        Refused: heads that don't divide a network's width.
    """

    weights: list[VariableSpec]
    activations: int

    def padding_mask(self, tokens: Shape) -> Shape:
        return tokens

    def embedding(self, tokens: Shape, vocabulary: int, width: int) -> Shape:
        self.weights.append(VariableSpec("embedding", (vocabulary, width)))
        self.activations += math.prod(tokens) * width
        return (*tokens, width)

    def positions(self, x: Shape, kind: Positions) -> Shape:
        if kind == "learned":
            self.weights.append(VariableSpec("embedding", x))
        return x

    def masked(self, x: Shape, mask: Shape) -> Shape:  # noqa: ARG002 - which places they are changes no shape
        return x

    def convolution_1d(self, x: Shape, filters: int, kernel_size: int) -> Shape:
        length, channels = x
        self.weights += [VariableSpec("kernel", (kernel_size, channels, filters)), VariableSpec("bias", (filters,))]
        self.activations += length * (filters + kernel_size * channels)
        return (length, filters)

    def attention(self, x: Shape, heads: int, mask: Shape) -> Shape:  # noqa: ARG002
        length, width = x
        if width % heads:
            raise Refused(f"Expected a width that the heads divide. Received: width={width}, heads={heads}")
        if width == heads == length:
            raise Refused(
                "Expected another max_length, or heads that are wider than one number: where heads, width and "
                f"max_length are the same, Keras adds the biases of attention to places. Received: {heads} of each"
            )
        inner = (heads, width // heads)
        for _ in ("query", "key", "value"):
            self.weights += [VariableSpec("kernel", (width, *inner), (width, width)), VariableSpec("bias", inner)]
        self.weights += [VariableSpec("kernel", (*inner, width), (width, width)), VariableSpec("bias", (width,))]
        self.activations += length * (5 * width + 2 * heads * length)
        return x

    def layer_norm(self, x: Shape) -> Shape:
        shape = (x[-1],)
        self.weights += [VariableSpec("gamma", shape), VariableSpec("beta", shape)]
        self.activations += math.prod(x)
        return x
