"""Turns for what computes: few at a time, on threads of their own, so that simple calls always find one.

Waiting for a turn takes no thread. An export takes a turn for each batch of trials and gives it back while the batch is
sent: a client that reads slowly keeps nobody waiting, and several exports advance side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from app.errors import Unready

AT_ONCE = 2
PATIENCE_S = 20.0
"""How long a request waits for its turn before the service says that it is too busy."""

T = TypeVar("T")


class Turns:
    """The turns of one API process. All methods belong to its event loop."""

    def __init__(self, at_once: int = AT_ONCE, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._free = asyncio.Semaphore(at_once)
        self._threads = CapacityLimiter(at_once)

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, on a thread.

        Raises:
            Unready: others are being computed.
        """
        try:
            async with asyncio.timeout(self._patience_s):
                await self._free.acquire()
        except TimeoutError:
            raise Unready(
                f"Expected a turn to compute within {self._patience_s:g} s. Others are being computed: try again in a "
                "moment."
            ) from None
        try:
            return await to_thread.run_sync(work, limiter=self._threads)
        finally:
            self._free.release()

    async def each(self, items: Iterator[T]) -> AsyncIterator[T]:
        """The items, each made in a turn."""
        end = object()
        while True:
            async with self._free:
                item = await to_thread.run_sync(next, items, end, limiter=self._threads)
            if item is end:
                return
            yield item  # type: ignore[misc]
