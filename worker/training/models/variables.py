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
    """A variable of one member: what it is, and its shape without the axis of members."""

    kind: VariableKind
    shape: Shape

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)
