"""Directions: which of two values of a metric is better, and values as losses, of which less always is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

Direction = Literal["minimize", "maximize"]


def maximizes(direction: str) -> bool:
    """Whether more is better."""
    return direction == "maximize"


def sign(direction: str) -> int:
    """What makes a value a loss: 1 where less is better, -1 where more is."""
    return -1 if maximizes(direction) else 1


def is_better(value: float, than: float, direction: str) -> bool:
    """Whether a value beats another; nan beats nothing, and nothing beats it."""
    return value > than if maximizes(direction) else value < than


def losses(values: Iterable[float], directions: Sequence[str]) -> tuple[float, ...]:
    """The values of several objectives as losses."""
    return tuple(sign(direction) * value for value, direction in zip(values, directions, strict=True))
