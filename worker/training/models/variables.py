"""A network's variables, and the words in which blocks speak of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")
Shape = tuple[int, ...]
Pooling = Literal["max", "average"]
VariableKind = Literal["kernel", "embedding", "bias", "gamma", "beta", "moving_mean", "moving_variance"]


@dataclass(frozen=True, slots=True)
class VariableSpec:
    """A variable of one member: what it is, and its shape without the axis of members.

    `matrix` is what a kernel of heads is to its layer, (inputs, outputs), where its shape tells others.
    """

    kind: VariableKind
    shape: Shape
    matrix: tuple[int, int] | None = None

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def fans(self) -> tuple[int, int]:
        """How many numbers each output of a kernel is made of, and how many outputs each input goes to."""
        if self.matrix is not None:
            return self.matrix
        *receptive, inputs, outputs = self.shape
        return math.prod(receptive) * inputs, math.prod(receptive) * outputs
