"""Disks that are full, or can't be written: small file systems of their own, which a test fills and frees again."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

FILLER = "filler"
BLOCK = b"x" * 4096


@dataclass(frozen=True)
class Disk:
    """A mounted file system."""

    folder: Path

    def fill(self) -> None:
        """Leave no byte free."""
        with contextlib.suppress(OSError), (self.folder / FILLER).open("ab", buffering=0) as filler:
            while True:
                filler.write(BLOCK)

    def free(self) -> None:
        """Take back what `fill` took."""
        (self.folder / FILLER).unlink()


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Disk]:
    """A file system in memory of `size`, such as `256k`, mounted at `folder`; skips where that is not permitted."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"A full disk wants the right to mount one: {done.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
