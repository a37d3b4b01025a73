"""Files that are made to cost much or to break a reader, and what measures a reading of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from app.data.keeping import Kept, Naming, keep
from app.data.limits import DataLimits
from app.data.reading import FileFormat, Reading
from app.errors import FettleError

FLIPS = 120


def keep_and_measure(source: Path, reading: Reading, limits: DataLimits, target: Path) -> tuple[Kept, int]:
    """What comes of a file, and the most bytes that this process had in memory at any time."""
    kept = keep(source, reading, limits, Naming("n", "", "upload"), target)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return kept, int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) * 1024


def flipped(content: bytes, seed: int) -> bytes:
    """The content with up to three of its bytes changed; every tenth is cut as well."""
    draws = np.random.default_rng(seed)
    changed = bytearray(content)
    for at in draws.integers(0, len(changed), int(draws.integers(1, 4))):
        changed[at] = int(draws.integers(0, 256))
    return bytes(changed[: int(draws.integers(1, len(changed)))] if seed % 10 == 0 else changed)


def read_flipped(content: bytes, form: FileFormat, target: str | None, folder: Path, first: int) -> None:
    """Read files that are almost `content`, from a number on; `folder` notes how many were begun, and how they ended.

    Anything but a refusal in words is raised.
    """
    source = folder / "source"
    for seed in range(first, FLIPS):
        (folder / "begun").write_text(str(seed + 1), encoding="ascii")
        source.write_bytes(flipped(content, seed))
        try:
            keep(source, Reading(format=form, target=target), DataLimits(), Naming("n", "", "upload"), folder / "kept")
        except FettleError:
            (folder / f"refused-{seed}").touch()
