"""What the streams of this process hold in memory for their clients, counted together and bounded.

Each stream has bounds of its own, but there may be thousands of them. Bytes that several hold are counted once. Where
all is too much, whoever has held something for longest is told to give it up: clients that read hold nothing for long.
"""

from __future__ import annotations

from typing import Protocol

MAX_BYTES = 64_000_000
"""What all streams of a process may hold together."""


class Holder(Protocol):
    """Who holds bytes for a client, and can be told to release all of them at once."""

    def give_up(self) -> None: ...


class Backlog:
    """The bytes that are held. All methods belong to one event loop."""

    def __init__(self, limit: int = MAX_BYTES) -> None:
        self.limit = limit
        self.total = 0
        """Bytes held now, each piece counted once."""
        self._pieces: dict[int, int] = {}
        """How often each piece is held, by its identity: whoever holds it keeps it alive."""
        self._held: dict[Holder, int] = {}
        """How many pieces each holder has; who has held some for longest comes first."""

    def hold(self, holder: Holder, piece: bytes) -> None:
        """Count a piece; whoever has held some for longest gives up where it is too much."""
        key = id(piece)
        if key not in self._pieces:
            self.total += len(piece)
        self._pieces[key] = self._pieces.get(key, 0) + 1
        self._held[holder] = self._held.get(holder, 0) + 1
        while self.total > self.limit and len(self._held) > 1:
            next(iter(self._held)).give_up()

    def release(self, holder: Holder, piece: bytes) -> None:
        """Forget a piece that is not held any longer."""
        key = id(piece)
        self._pieces[key] -= 1
        if not self._pieces[key]:
            del self._pieces[key]
            self.total -= len(piece)
        self._held[holder] -= 1
        if not self._held[holder]:
            del self._held[holder]
