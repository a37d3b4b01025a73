"""What the plots have in common: a drawing of plain values, its words, and its colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.tuning.snapshot import Snapshot, Valued

Trace = dict[str, Any]
"""One trace in Plotly's words. All numbers in it are finite; texts of users' went through `app.tuning.labels`."""

BROKEN = {"color": "#aaaaaa", "symbol": "x"}
"""The mark of trials that break a constraint."""
PALE, DARK = (222, 235, 247), (8, 48, 107)
"""The ends of the blue scale, as red, green and blue."""
BLUES = [[0, f"rgb{PALE}"], [1, f"rgb{DARK}"]]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure, and how many trials it shows of how many. `reason` says why there is nothing in it; `notes` what is
    missing of the rest.
    """

    title: str
    shown: int = 0
    of: int = 0
    data: Sequence[Trace] = ()
    layout: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    notes: Sequence[str] = ()


def blank(title: str, reason: str, of: int = 0) -> Drawing:
    """A figure without data that says why."""
    return Drawing(title, of=of, reason=reason)


def no_values(snapshot: Snapshot, title: str, metric: str) -> Drawing:
    """The figure of a study without any finite value of an objective."""
    complete = len(snapshot.complete)
    if complete:
        return blank(title, f"None of the {complete:,} COMPLETE trials has a finite {metric}.", complete)
    return blank(title, f"There are no COMPLETE trials yet: {title.lower()} shows them.")


def left_out(snapshot: Snapshot, valued: Sequence[Valued], metric: str) -> list[str]:
    """A note about COMPLETE trials whose value is no finite number."""
    count = len(snapshot.complete) - len(valued)
    return [f"{count:,} COMPLETE trials without a finite {metric} are left out."] if count else []


def shade(position: float) -> str:
    """The colour of a position from 0 to 1 on the blue scale."""
    mixed = (round(pale + (dark - pale) * position) for pale, dark in zip(PALE, DARK, strict=True))
    return "rgb({},{},{})".format(*mixed)


def titled(text: str) -> dict[str, Any]:
    """A title in Plotly's words."""
    return {"title": {"text": text}}


def domains(count: int, gap: float = 0.04) -> list[list[float]]:
    """Where `count` axes beside one another begin and end, as parts of the whole."""
    gap = min(gap, 0.4 / count)
    width = (1 - gap * (count - 1)) / count
    return [[i * (width + gap), min(1.0, i * (width + gap) + width)] for i in range(count)]


def axis_id(letter: str, place: int) -> str:
    """Plotly's name of an axis as traces have it: x, x2, x3, …"""
    return letter if place == 0 else f"{letter}{place + 1}"


def axis_key(letter: str, place: int) -> str:
    """Plotly's name of an axis in a layout: xaxis, xaxis2, …"""
    return f"{letter}axis{'' if place == 0 else place + 1}"
