"""Parts of the bench and the way through them: each task is measured, recorded at once, and skipped where it was.

A part yields its tasks in the order in which they are to run, sides in alternation, and makes rows of what is recorded.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.claims import Comparison
from bench.record import FETTLE, ROOT, Records, digest, record
from bench.table import Row

PEERS_PYTHON = Path(".venv-peers") / "bin" / "python"
FAILURES = (RuntimeError, OSError, ValueError, KeyError, httpx.HTTPError, subprocess.SubprocessError)
"""What ends a task without ending the bench: the rest is still worth its hours."""

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Options:
    """How the bench was asked to run."""

    repetitions: int = 3
    quick: bool = False
    again: bool = False
    keep_peers: bool = False
    peers_python: Path = PEERS_PYTHON


@dataclass(frozen=True)
class Task:
    """Something to measure: gives the figures of each of `rows` of one side, for one repetition.

    `settings` are what makes figures comparable: sizes, epochs, targets. A side in an environment of its own tells
    its versions with its figures, under `versions`.
    """

    rows: tuple[str, ...]
    side: str
    repetition: int
    settings: Mapping[str, Any]
    run: Callable[[], Mapping[str, Figures]]


@dataclass(frozen=True)
class Part:
    """A part of the bench: what it measures, the rows that its records make, and where sides are compared, how."""

    name: str
    tasks: Callable[[Options, Records], Iterator[Task]]
    rows: Callable[[Records], list[Row]]
    comparison: Comparison | None = None


def whole(name: str, file: str, rows: Callable[[Options], list[Row]]) -> Part:
    """A part that measures all its rows in one go, in an alternation of its own; `file` in `bench` is its code."""

    def tasks(options: Options, _records: Records) -> Iterator[Task]:
        def run() -> dict[str, Figures]:
            return {name: {"rows": [asdict(row) for row in rows(options)]}}

        code = digest(ROOT, (f"bench/{file}",))
        settings = {"repetitions": options.repetitions, "quick": options.quick, "code": code}
        yield Task((name,), FETTLE, 0, settings, run)

    def recorded(records: Records) -> list[Row]:
        return [Row(**row) for found in records.latest(name, FETTLE) for row in found.figures["rows"]]

    return Part(name, tasks, recorded)


@dataclass
class Run:
    """One way through some parts. `failures` are the tasks that broke, in words."""

    options: Options
    records: Records
    say: Callable[[str], None] = print
    failures: list[str] = field(default_factory=list)

    def part(self, part: Part) -> None:
        """Measure what is not yet recorded of a part, in its order."""
        for task in part.tasks(self.options, self.records):
            label = f"{part.name}: {', '.join(task.rows)}, {task.side}, repetition {task.repetition}"
            if not self.options.again and self._is_recorded(task):
                self.say(f"{label}: recorded earlier")
                continue
            started, load = time.perf_counter(), os.getloadavg()[0]
            try:
                found = task.run()
            except FAILURES as error:
                self.failures.append(f"{label}: {type(error).__name__}: {error}")
                self.say(f"FAILED {self.failures[-1]}")
                continue
            for row in task.rows:
                figures = {"load_before": load, **found[row]}
                versions = figures.pop("versions", None)
                self.records.append(record(row, task.side, task.repetition, task.settings, figures, versions))
            self.say(f"{label}: {time.perf_counter() - started:.0f} s")

    def _is_recorded(self, task: Task) -> bool:
        any_fettle = self.options.keep_peers and task.side != FETTLE
        return all(
            self.records.holds(record(row, task.side, task.repetition, task.settings, {}), any_fettle)
            for row in task.rows
        )
