"""What is kept in memory because it may be asked for again, bounded by bytes: the least recently used goes first.

A number of entries bounds nothing where one may be a hundred bytes or ten megabytes, so whoever puts something in says
how large it is.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

ENTRY_BYTES = 200
"""What an entry takes beside its value: its key and its place."""

V = TypeVar("V")


class Kept(Generic[V]):
    """Values by key, of `limit` bytes at most together. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._values: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """What all of it takes now."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> V | None:
        """What is kept under a key; None where nothing is (any longer)."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: V, size: int) -> None:
        """Keep a value of `size` bytes in place of the key's earlier one; not where it is larger than the limit."""
        size += ENTRY_BYTES
        with self._lock:
            self._drop(key)
            if size > self.limit:
                return
            self._values[key] = (value, size)
            self._bytes += size
            while self._bytes > self.limit:
                self._drop(next(iter(self._values)))

    def resize(self, key: Hashable, size: int) -> None:
        """Note that a value takes `size` bytes now, where it is still kept; it stays, though others may go."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return
            self._bytes += size + ENTRY_BYTES - found[1]
            self._values[key] = (found[0], size + ENTRY_BYTES)
            self._values.move_to_end(key)
            while self._bytes > self.limit and len(self._values) > 1:
                self._drop(next(iter(self._values)))

    def drop(self, key: Hashable) -> None:
        """Keep nothing under this key."""
        with self._lock:
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        found = self._values.pop(key, None)
        if found is not None:
            self._bytes -= found[1]
