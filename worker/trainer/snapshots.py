"""Snapshots: everything that a member needs to go on training elsewhere as if nothing had happened.

A snapshot is a dictionary of arrays and a JSON object, in one plain `.npz` file without pickles. The trainer writes and
reads it; what it holds is the trainee's and the conversation's affair.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
"""Snapshots of another format are not read."""
DETAILS = "details"
"""The array of bytes that is the snapshot's JSON."""
SHELF_BYTES = 256 * 2**20
"""What a trainer keeps of snapshots in memory."""

Arrays = Mapping[str, "NDArray[Any]"]


class UnreadableSnapshot(Exception):
    """A snapshot that is missing, damaged, or of something else than what is to be trained; the message says which."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A member's state: `arrays` are the trainee's, `details` (JSON values) the conversation's."""

    arrays: Arrays
    details: dict[str, Any]

    @property
    def size_bytes(self) -> int:
        """How much memory its arrays take."""
        return sum(array.nbytes for array in self.arrays.values())


def write_snapshot(path: str, snapshot: Snapshot) -> int:
    """Write a snapshot to `path`, whole or not at all; its size in bytes.

    Raises:
        OSError: the file can't be written.
    """
    import numpy as np  # here and below: not every trainer needs it

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    details = np.frombuffer(json.dumps({"format": FORMAT, **snapshot.details}).encode(), np.uint8)
    try:
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, **{DETAILS: details, **snapshot.arrays})
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target.stat().st_size


def read_snapshot(path: str) -> Snapshot:
    """The snapshot at `path`.

    Raises:
        UnreadableSnapshot: it is missing, damaged or of another format.
    """
    import numpy as np

    try:
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        details = json.loads(arrays.pop(DETAILS).tobytes())
        found = details.pop("format")
    except Exception as error:  # whatever a damaged file makes of zip, NumPy and JSON
        raise UnreadableSnapshot(f"Expected a snapshot. Received {type(error).__name__}: {error}") from error
    if found != FORMAT:
        raise UnreadableSnapshot(f"Expected a snapshot of format {FORMAT}. Received format {found!r}")
    return Snapshot(arrays, details)


def snapshot_key(attempt: str, epochs: int) -> str:
    """By what a snapshot is known that the `attempt` left after so many of its epochs."""
    return f"{attempt}-epoch-{epochs}"


class Shelf:
    """Snapshots that were handed on of late, in memory: who goes on from one in the same trainer reads no file."""

    def __init__(self, most_bytes: int = SHELF_BYTES) -> None:
        self._most_bytes = most_bytes
        self._snapshots: OrderedDict[str, Snapshot] = OrderedDict()
        self._bytes = 0

    def put(self, key: str, snapshot: Snapshot) -> None:
        """Keep a snapshot, at the expense of the oldest."""
        if key in self._snapshots:
            self._bytes -= self._snapshots.pop(key).size_bytes
        self._snapshots[key] = snapshot
        self._bytes += snapshot.size_bytes
        while self._bytes > self._most_bytes:
            self._bytes -= self._snapshots.popitem(last=False)[1].size_bytes

    def get(self, key: str) -> Snapshot | None:
        """The snapshot that was put by this key, where it is still there."""
        return self._snapshots.get(key)
