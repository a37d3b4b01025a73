"""Where values stand on their scales: from 0 to 1, whatever the range, and on the axes of figures.

Ranges may have any finite width, from one subnormal number to the largest of all: nothing here overflows or divides by
zero. Libraries that compute or draw don't bear that much: they get positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.space import Categorical, Float, Int
from app.tuning.labels import choice_labels, number_texts

FARTHEST = 1e300
CLOSEST = 1e-300
"""Numbers beyond the one, and differences below the other, are nothing that plotly.js draws."""
NARROWEST = 1e-12
"""Width of a range, relative to its numbers: what is closer together can't be told apart in a picture."""
LARGEST_SINGLE = 1e15
"""Where all values are the same an axis reaches a bit to either side: beyond this there is nothing between."""
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_TICKS = 40
"""Choices that are named on an axis."""
MARGIN = 0.06
"""What is left free at either end of an axis of positions."""
OWN_TICKS = {"automargin": True, "zeroline": False}
"""Of an axis whose ticks are named here: 0 is no more than any of them."""


@dataclass(frozen=True, slots=True)
class Range:
    """The finite numbers from `low` to `high`, on a linear or logarithmic scale (then above 0)."""

    low: float
    high: float
    log: bool = False

    def position(self, value: float) -> float:
        """Where a number is between the ends: 0 to 1; 0.5 where these are the same."""
        if self.low == self.high:
            return 0.5
        low, high, value = float(self.low), float(self.high), float(value)
        if self.log:
            part = _log_ratio(value, low) / _log_ratio(high, low)
        elif math.isinf(high - low):
            part = (value / 2 - low / 2) / (high / 2 - low / 2)
        else:
            part = (value - low) / (high - low)
        return min(max(part, 0.0), 1.0)

    def at(self, position: float) -> float:
        """The number at a position."""
        if self.log:
            value = math.exp(math.log(self.low) * (1 - position) + math.log(self.high) * position)
        else:
            value = self.low * (1 - position) + self.high * position
        return min(max(value, float(self.low)), float(self.high))

    @property
    def can_be_drawn(self) -> bool:
        """Whether plotly.js can draw an axis of these numbers themselves."""
        farthest = max(abs(self.low), abs(self.high))
        if self.low == self.high:
            return farthest <= LARGEST_SINGLE and (not self.log or self.low >= CLOSEST)
        if self.log:
            return self.low >= CLOSEST and self.high <= FARTHEST and _log_ratio(self.high, self.low) > NARROWEST**0.5
        return farthest <= FARTHEST and self.high - self.low >= max(CLOSEST, NARROWEST * farthest)

    @property
    def ticks(self) -> tuple[list[float], list[str]]:
        """Positions to name on an axis, and their names."""
        places = [0.5] if self.low == self.high else list(TICKS)
        return places, number_texts([self.at(place) for place in places])


def _log_ratio(value: float, low: float) -> float:
    """log(value / low), exact also where they are close together."""
    near = low <= value <= 2 * low
    return math.log1p((value - low) / low) if near else math.log(value) - math.log(low)


@dataclass(frozen=True, slots=True)
class Choices:
    """Choices by their places: 0, 1, …"""

    labels: tuple[str, ...]

    def position(self, place: float) -> float:
        """Where a choice is between the first and the last: 0 to 1."""
        return 0.5 if len(self.labels) == 1 else place / (len(self.labels) - 1)

    @property
    def ticks(self) -> tuple[list[float], list[str]]:
        """Places to name on an axis, and their names."""
        step = -(-len(self.labels) // MOST_TICKS)
        return [float(place) for place in range(0, len(self.labels), step)], list(self.labels[::step])


Scale = Range | Choices


def scale_of(parameter: Float | Int | Categorical) -> Scale:
    """The scale that a hyperparameter is searched on; its choices are known by their places."""
    if isinstance(parameter, Categorical):
        return Choices(tuple(choice_labels(parameter.choices)))
    return Range(parameter.low, parameter.high, parameter.log)


def range_of(values: Sequence[float], *, log: bool = False) -> Range:
    """The range that these finite numbers take; there is one at least."""
    return Range(min(values), max(values), log)


@dataclass(frozen=True, slots=True)
class Axis:
    """How a figure's axis shows values: `coordinate` is what a trace holds for one."""

    scale: Scale

    @property
    def _is_direct(self) -> bool:
        return isinstance(self.scale, Choices) or self.scale.can_be_drawn

    def coordinate(self, value: float) -> float:
        """The value's place on the axis: itself, unless plotly.js can't draw it."""
        return value if self._is_direct else self.scale.position(value)

    def layout(self) -> dict[str, Any]:
        """The axis' own settings in Plotly's words."""
        if isinstance(self.scale, Choices):
            places, names = self.scale.ticks
            margin = max(0.5, MARGIN * len(self.scale.labels))
            ends = [-margin, len(self.scale.labels) - 1 + margin]
            return {"tickvals": places, "ticktext": names, "range": ends, "type": "linear", **OWN_TICKS}
        if self.scale.can_be_drawn:
            return {"type": "log" if self.scale.log else "linear", "automargin": True}
        places, names = self.scale.ticks
        return {"tickvals": places, "ticktext": names, "range": [-MARGIN, 1 + MARGIN], "type": "linear", **OWN_TICKS}

    def colorbar(self) -> dict[str, Any]:
        """The same of a colour bar."""
        if isinstance(self.scale, Range) and self.scale.can_be_drawn:
            return {}
        places, names = self.scale.ticks
        return {"tickvals": places, "ticktext": names}

    def text(self, value: float) -> str:
        """The value in words; of a choice its label."""
        if isinstance(self.scale, Choices):
            return self.scale.labels[int(value)]
        return str(value) if isinstance(value, int) else f"{value:.6g}"
