"""What one computation may take."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_SECONDS = 30.0
DEFAULT_MEMORY_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds by the clock, and bytes of memory beyond what the child takes before it begins."""

    seconds: float = DEFAULT_SECONDS
    memory_bytes: int = DEFAULT_MEMORY_BYTES
