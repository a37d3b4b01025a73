"""The data set `shapes`: grey images of ten geometric shapes, drawn here. NumPy alone.

A shape has any place, size, brightness and turn, and lies in noise. It is a set whose images are large enough for
convolutions to cost something, without a file or a licence; no two images are made from one another, so that a random
split is an honest one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIDE = 28
"""Pixels of an image's edge."""
IMAGES = 6000
SEED = 20_190_314
"""Of the generator: the images are the same everywhere."""
SMALLEST, LARGEST = 5.0, 10.0
"""Radius of a shape in pixels."""
DARKEST = 0.5
"""Brightness of the faintest shape, where the brightest has 1."""
NOISE = 0.2
"""Standard deviation of the noise on each pixel."""
EDGE = 1.0
"""Pixels over which the brightness falls at a shape's edge."""


def _polygon(u: Floats, v: Floats, corners: int) -> Floats:
    """Distance from a regular polygon's edge in units of its radius, negative inside."""
    angle = np.arctan2(v, u)
    sector = 2 * np.pi / corners
    folded = (angle % sector) - sector / 2
    distance: Floats = np.hypot(u, v) * np.cos(folded) - np.cos(sector / 2)
    return distance


def _bar(u: Floats, v: Floats) -> Floats:
    return np.maximum(np.abs(u) - 1.0, np.abs(v) - 0.28)


def _disc(u: Floats, v: Floats) -> Floats:
    return np.hypot(u, v) - 0.9


def _outline(distance: Floats) -> Floats:
    return np.abs(distance + 0.2) - 0.2


SHAPES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "disc": _disc,
    "ring": lambda u, v: _outline(_disc(u, v)),
    "square": lambda u, v: _polygon(u, v, 4),
    "frame": lambda u, v: _outline(_polygon(u, v, 4)),
    "triangle": lambda u, v: _polygon(u, v, 3),
    "wedge": lambda u, v: _outline(_polygon(u, v, 3)),
    "bar": _bar,
    "cross": lambda u, v: np.minimum(_bar(u, v), _bar(v, u)),
    "half": lambda u, v: np.maximum(_disc(u, v), v - 0.1),
    "crescent": lambda u, v: np.maximum(_disc(u, v), 0.75 - np.hypot(u - 0.5, v)),
}
"""By the name of its class a shape as its distance from the edge, in units of its radius; negative inside."""


@lru_cache(maxsize=1)
def shapes() -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The images, [6000, 28, 28] float32 in 0..1, and their classes, [6000] int32 in the order of `SHAPES`."""
    random = np.random.default_rng(SEED)
    labels = random.permutation(np.arange(IMAGES) % len(SHAPES)).astype(np.int32)
    radius = random.uniform(SMALLEST, LARGEST, IMAGES)[:, None, None]
    turn = random.uniform(0, 2 * np.pi, IMAGES)[:, None, None]
    # The whole shape lies in the image.
    room = SIDE / 2 - radius
    x, y = (SIDE / 2 + random.uniform(-1, 1, IMAGES)[:, None, None] * room for _ in range(2))
    brightness = random.uniform(DARKEST, 1.0, IMAGES)[:, None, None]
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    across, down = (columns - x) / radius, (rows - y) / radius
    u, v = across * np.cos(turn) + down * np.sin(turn), down * np.cos(turn) - across * np.sin(turn)
    distance = np.empty((IMAGES, SIDE, SIDE))
    for label, shape in enumerate(SHAPES.values()):
        mine = labels == label
        distance[mine] = shape(u[mine], v[mine])
    drawn = brightness * np.clip(0.5 - distance * radius / EDGE, 0, 1)
    images = np.clip(drawn + random.normal(0, NOISE, drawn.shape), 0, 1)
    return images.astype(np.float32), labels
