"""Rows of a benchmark: medians of repeated runs, their spread, and the ratio that the claim is about."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

WITHOUT_RATIO = ("share",)
"""Units of which a ratio says nothing: a share of right answers."""
WIDTH = 160


@dataclass(slots=True)
class Row:
    """One measured claim. `ours` and `theirs` are one figure a repetition, taken in alternation."""

    name: str
    unit: str
    ours: list[float]
    theirs: list[float] = field(default_factory=list)
    goal: str = ""
    met: bool | None = None
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """Theirs over ours or ours over theirs, so that more is better, pair by pair."""
        if self.unit in WITHOUT_RATIO:
            return []
        per_minute = self.unit.endswith("/min")
        return [o / t if per_minute else t / o for o, t in zip(self.ours, self.theirs, strict=False)]

    @property
    def verdict(self) -> str:
        """Whether the goal is met, in a word; empty where there is none."""
        return "" if self.met is None else ("yes" if self.met else "NO")


def number(value: float) -> str:
    """A figure with three or more digits that count, without an exponent: 0.983, 14.6, 1234."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.3f}"


def spread(values: Sequence[float]) -> str:
    """The median, with the least and the greatest where there are several."""
    if not values:
        return "-"
    middle = number(statistics.median(values))
    least, greatest = number(min(values)), number(max(values))
    return middle if least == greatest else f"{middle} ({least}-{greatest})"


def table(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """Lines of cells as a table for the terminal."""
    made = Table(title=title, show_lines=True)
    for column in columns:
        made.add_column(column, overflow="fold")
    for line in lines:
        made.add_row(*line)
    return made


ROW_COLUMNS = ("what", "unit", "Fettle", "peer", "ratio", "goal", "met", "note")


def cells(row: Row) -> tuple[str, ...]:
    """A row's cells, in the order of `ROW_COLUMNS`."""
    ratio = f"{spread(row.ratios)} x" if row.ratios else ""
    theirs = spread(row.theirs) if row.theirs else ""
    return (row.name, row.unit, spread(row.ours), theirs, ratio, row.goal, row.verdict, row.note)


def show(rows: Sequence[Row]) -> None:
    """Print the rows as a table."""
    title = "Medians (least-greatest) of runs taken in alternation"
    Console(width=WIDTH).print(table(title, ROW_COLUMNS, [cells(row) for row in rows]))
