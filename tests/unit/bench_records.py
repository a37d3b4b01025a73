"""Records as a bench would have written them, for the tests of what is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.record import Record, Records

MACHINE = {"processor": "Some CPU", "cores": 2, "memory_gb": 16, "system": "Linux x86_64"}


def figures(rate: float, **more: Any) -> dict[str, Any]:
    """What a side gives, with only the rate chosen."""
    return {"rate": rate, "target_s": 10.0, "best": 0.98, "cpu_s": 1.0, "peak_mb": 500.0, "complete": 24} | more


def made(
    row: str,
    side: str,
    repetition: int,
    found: Mapping[str, Any],
    *,
    settings: Mapping[str, Any] | None = None,
    fettle: str = "f1",
    peers: str = "p1",
    **more: Any,
) -> Record:
    """A record of one measurement, with the digests of the code that it was taken with."""
    given: dict[str, Any] = {
        "at": "2026-01-02T03:04:05+00:00",
        "describe": "v0",
        "machine": MACHINE,
        "versions": {"optuna": "5.0.0"},
    }
    code = {"fettle": fettle, "peers": peers}
    return Record(row, side, repetition, settings or {"trials": 24}, found, code=code, **given | more)


def written(path: Path, records: Sequence[Record]) -> Records:
    """The records in a file, as they are read again from it."""
    file = Records(path)
    for record in records:
        file.append(record)
    return Records(path)
