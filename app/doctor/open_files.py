"""Processes that work with an SQLite file which is not the one at its path any more: what they write is lost."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from app.doctor.examination import Examination
from app.doctor.findings import Finding, failed, ok
from app.store.presence import BESIDE

PROCESSES = Path("/proc")
GONE = " (deleted)"
"""What Linux adds to the name of an open file that has none any more."""
NAMED = 5

Identity = tuple[int, int]


def open_files(examination: Examination) -> Iterator[Finding]:
    """Look through the processes that this user may look into, on Linux."""
    if not (examination.is_sqlite and PROCESSES.is_dir()):
        return
    path = str(examination.file.resolve())
    names = [path, *(path + ending for ending in BESIDE)]
    users, lost = 0, []
    for process in PROCESSES.iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        held = _held(process, names)
        users += bool(held)
        lost += [f"process {process.name} ({name})" for name, ids in held.items() if _identity(Path(name)) not in ids]
        if held and path not in held:
            lost.append(f"process {process.name} ({path})")
    expected = f"processes that have the files open which lie at {path}"
    if not lost:
        yield ok("sqlite open files", expected, f"{users} processes have them open")
        return
    more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
    found = f"deleted or replaced under {', '.join(lost[:NAMED])}{more}"
    advice = (
        "They refuse to write until it is back: put the file back, or restart them on the one that is there. While "
        "such a process lives, what it has can be copied: look for the deleted files, with -wal, in /proc/PROCESS/fd."
    )
    yield failed("sqlite open files", expected, found, advice)


def _held(process: Path, names: list[str]) -> dict[str, set[Identity | None]]:
    """Which of the files, by the names that they had when they were opened, a process has open."""
    held: dict[str, set[Identity | None]] = defaultdict(set)
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:
        return {}  # another user's, or gone
    for descriptor in descriptors:
        try:
            name = str(descriptor.readlink()).removesuffix(GONE)
        except OSError:
            continue
        if name in names:
            held[name].add(_identity(descriptor))
    return held


def _identity(path: Path) -> Identity | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino
