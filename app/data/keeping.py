"""From a file of a user to its kept form on disk: what a process is asked to do that has a limit on its memory.

The process that asks gets a description back, never arrays.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from app.data.limits import DataLimits
from app.data.normal import write
from app.data.reading import Reading, no_room, refuse
from app.domain.datasets import Dataset, Origin


@dataclass(frozen=True, slots=True)
class Naming:
    """What a data set is called, and how it came."""

    name: str
    description: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of a data set, and the SHA-256 and size in bytes of the file that keeps it."""

    dataset: Dataset
    object_hash: str
    size_bytes: int


def keep(source: Path, reading: Reading, limits: DataLimits, naming: Naming, target: Path) -> Kept:
    """Read the file at `source`, and write what is kept of it to `target`.

    For a process of its own: Arrow's allocator is changed.

    Raises:
        InvalidDataset: the file or the reading is no good; it says where.
        Unready: there is no room on this machine.
    """
    # Arrow's own allocators reserve a gigabyte ahead, and give back late what is free: a limit counts both as taken.
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    import pyarrow as pa

    from app.data.assembly import read_dataset

    pa.set_memory_pool(pa.system_memory_pool())
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    normal = read_dataset(
        source, reading, limits, name=naming.name, description=naming.description, origin=naming.origin
    )
    size = normal.size_bytes
    if size > limits.unpacked_bytes:
        refuse(("file",), f"Expected at most {limits.unpacked_bytes:,} bytes to keep. Received: {size:,}")
    try:
        return Kept(normal.dataset, write(normal, target), target.stat().st_size)
    except OSError as error:
        raise no_room(error) from None
