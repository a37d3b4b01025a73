"""What an uploaded file may hold at most: looked at before its contents are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.settings import Settings

MAX_CLASSES = 1_000
MAX_CATEGORIES = 1_000
"""Values of one category at most: each is a number of the network's input."""
MAX_VALUE_CHARACTERS = 200
"""Characters of a class' or a category's name."""
MAX_TEXT_CHARACTERS = 100_000
MAX_COLUMNS = 10_000
MAX_MEMBERS = 64
"""Files in a `.npz` archive: more is something else."""
MAX_WIDTH = 1_000_000
"""Numbers in one sample."""
READERS_BYTES = 128 * 2**20
"""What the libraries take that read files, and a block of a file in each of its forms."""
READING_S = 180.0
"""How long it may take to read a file: the largest ones take half a minute, on a machine that does nothing else."""


@dataclass(frozen=True, slots=True)
class DataLimits:
    """The operator's limits on what one file holds: the bytes that it unpacks to, and its rows."""

    unpacked_bytes: int = 1_000_000_000
    rows: int = 10_000_000

    @property
    def memory_bytes(self) -> int:
        """What reading a file may take of memory, beyond what a process takes that has read nothing."""
        return self.unpacked_bytes * 3 // 2 + READERS_BYTES


def data_limits(settings: Settings) -> DataLimits:
    """The limits that the settings give."""
    return DataLimits(settings.max_unpacked_bytes, settings.max_dataset_rows)
