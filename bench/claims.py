"""From recorded figures to rows: a claim names two measurements and the figure in which ours is to be better."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.record import FETTLE, Record, Records
from bench.table import Row, number, spread

Figure = Literal["rate", "target_s", "best", "cpu_s", "peak_mb"]
FIGURES: tuple[Figure, ...] = ("rate", "target_s", "best", "cpu_s", "peak_mb")
UNITS: dict[Figure, str] = {"rate": "trials/min", "target_s": "s", "best": "share", "cpu_s": "s", "peak_mb": "MB"}


@dataclass(frozen=True)
class Claim:
    """That Fettle's row `ours` is `goal` times better in `figure` than the side `peer` of the row `theirs`.

    `{trials}` in its name stands for how many trials Fettle's study has.
    Without a goal the ratio is shown as it is.
    """

    name: str
    ours: str
    theirs: str
    peer: str
    goal: float | None
    figure: Figure = "rate"
    note: str = ""


@dataclass(frozen=True)
class Line:
    """One line of a comparison: a side's row under a name of its own."""

    name: str
    row: str
    side: str


@dataclass(frozen=True)
class Comparison:
    """The figures of several sides for one work. Ratios are to the first of `lines`, which is Fettle's."""

    title: str
    lines: tuple[Line, ...]


def by_repetition(records: Sequence[Record], figure: str) -> dict[int, float]:
    """A figure of each repetition that has it."""
    return {r.repetition: r.figures[figure] for r in records if r.figures.get(figure) is not None}


def pairs(ours: Sequence[Record], theirs: Sequence[Record], figure: Figure) -> list[float]:
    """How many times better ours is, for each repetition that both sides have; empty where a ratio says nothing."""
    if figure == "best":
        return []
    a, b = by_repetition(ours, figure), by_repetition(theirs, figure)
    both = [(a[i], b[i]) for i in sorted(a.keys() & b.keys())]
    return [o / t if figure == "rate" else t / o for o, t in both]


def claimed(records: Records, claims: Sequence[Claim]) -> list[Row]:
    """A row for each claim of which something was measured."""
    found = []
    for claim in claims:
        ours, theirs = records.latest(claim.ours, FETTLE), records.latest(claim.theirs, claim.peer)
        if not ours:
            continue
        both = sorted(by_repetition(ours, claim.figure).keys() & by_repetition(theirs, claim.figure).keys())
        a, b = by_repetition(ours, claim.figure), by_repetition(theirs, claim.figure)
        row = Row(
            claim.name.format(trials=f"{ours[-1].settings.get('trials', 0):,}"),
            UNITS[claim.figure],
            [a[i] for i in both] or list(a.values()),
            [b[i] for i in both],
            f">= {claim.goal:g} x" if claim.goal else "",
            note="; ".join(filter(None, (f"peer: {claim.peer}", claim.note, *_reservations(ours, theirs)))),
        )
        if claim.goal and row.ratios:
            row.met = statistics.median(row.ratios) >= claim.goal
        found.append(row)
    return found


def _reservations(ours: Sequence[Record], theirs: Sequence[Record]) -> list[str]:
    """What a reader must know about a pair: that it was not taken in alternation."""
    if theirs and ours[-1].code.get("fettle") != theirs[-1].code.get("fettle"):
        return ["peer measured beside an earlier version"]
    return []


COMPARED = ("trials a minute", "s to target", "best accuracy", "CPU s a trial", "peak memory, MB")


def compared(records: Records, comparison: Comparison) -> list[tuple[str, ...]]:
    """A comparison's cells: the name, how many trials, and each of `COMPARED` with its ratio to the first line."""
    first = records.latest(comparison.lines[0].row, comparison.lines[0].side)
    found = []
    for line in comparison.lines:
        measured = records.latest(line.row, line.side)
        if measured:
            trials = number(measured[-1].figures["complete"])
            ours = first if line.side != FETTLE else []
            found.append((line.name, trials, *(_cell(ours, measured, figure) for figure in FIGURES)))
    return found


def _cell(ours: Sequence[Record], measured: Sequence[Record], figure: Figure) -> str:
    values: list[Any] = list(by_repetition(measured, figure).values())
    if not values:
        return "not reached" if figure == "target_s" else "-"
    text = spread(values)
    if len(values) < len(measured):
        text += f", reached in {len(values)} of {len(measured)}"
    ratios = pairs(ours, measured, figure)
    return f"{text}; {spread(ratios)} x" if ratios else text
