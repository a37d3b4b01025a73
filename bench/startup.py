"""How long `fettle up` takes to answer `/readyz`, with its worker starting beside it."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from bench.service import service
from bench.table import Row

GOAL_S = 2.5


def rows(repetitions: int) -> list[Row]:
    """Starts after the first on one data directory: the schema is there, Python's caches are warm."""
    with tempfile.TemporaryDirectory(prefix="fettle-bench-") as folder:
        with service(Path(folder)):
            pass
        seconds = []
        for _ in range(repetitions):
            with service(Path(folder)) as running:
                seconds.append(running.ready_s)
    return [
        Row(
            "fettle up to /readyz, second start",
            "s",
            seconds,
            goal=f"<= {GOAL_S:g} s",
            met=statistics.median(seconds) <= GOAL_S,
        )
    ]
