"""Rows of a benchmark: medians of repeated runs, their spread, and the ratio that the claim is about."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

PACKAGES = ("tensorflow", "keras", "optuna", "sqlalchemy", "fastapi", "numpy")
RESULTS = Path(__file__).parent / "results" / "latest.json"


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
        per_minute = self.unit.endswith("/min")
        return [o / t if per_minute else t / o for o, t in zip(self.ours, self.theirs, strict=False)]


def spread(values: Sequence[float]) -> str:
    """The median, with the least and the greatest where there are several."""
    if not values:
        return "-"
    middle = statistics.median(values)
    return f"{middle:.4g}" if len(values) == 1 else f"{middle:.4g} ({min(values):.4g}-{max(values):.4g})"


def show(rows: Sequence[Row]) -> None:
    """Print the rows as a table, and write them to `bench/results/latest.json` with machine and versions."""
    table = Table(title="Medians (least-greatest) of runs taken in alternation", show_lines=True)
    for column in ("what", "unit", "Fettle", "peer", "ratio", "goal", "met", "note"):
        table.add_column(column, overflow="fold")
    for row in rows:
        met = "" if row.met is None else ("yes" if row.met else "NO")
        ratio = f"{spread(row.ratios)} x" if row.ratios else ""
        table.add_row(row.name, row.unit, spread(row.ours), spread(row.theirs), ratio, row.goal, met, row.note)
    Console(width=150).print(table)
    machine = {"machine": platform.machine(), "python": platform.python_version(), "cores": _cores()}
    versions = {name: version(name) for name in PACKAGES}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps({"machine": machine, "versions": versions, "rows": [asdict(r) for r in rows]}, indent=1)
    )


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))
