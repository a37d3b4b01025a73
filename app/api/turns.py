"""Turns for what computes: few at a time, on threads of their own, so that simple calls always find one.

Waiting for a turn takes no thread. Metered work ends when its client leaves. An export takes a turn for each batch of
trials and gives it back while the batch is sent: a client that reads slowly keeps nobody waiting, and several exports
advance side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect, Request

from app.domain.effort import Meter
from app.errors import Unready

AT_ONCE = 2
PATIENCE_S = 20.0
"""How long a request waits for its turn before the service says that it is too busy."""
LONGEST_S = 30.0
"""How long metered work may take: its steps are bounded, but what else the machine does is not."""

T = TypeVar("T")


class Turns:
    """The turns of one API process. All methods belong to its event loop."""

    def __init__(self, at_once: int = AT_ONCE, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._free = asyncio.Semaphore(at_once)
        self._threads = CapacityLimiter(at_once)
        self._abandoned: set[asyncio.Task[Any]] = set()

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

    async def metered(self, request: Request, work: Callable[[Meter], T]) -> T:
        """The result of `work`, as `run`; its meter makes it end once the client of `request` has left.

        Raises:
            InvalidStudy: it takes more steps than a request may cause.
            Unready: others are being computed, or it takes too long.
            ClientDisconnect: the client has left.
        """
        meter = Meter()
        has_begun = False

        def begin() -> T:
            nonlocal has_begun
            has_begun = True
            return work(meter)

        computing = asyncio.create_task(self.run(begin))
        leaving = asyncio.create_task(_departure(request))
        try:
            longest_s = self._patience_s + LONGEST_S
            await asyncio.wait({computing, leaving}, timeout=longest_s, return_when=asyncio.FIRST_COMPLETED)
            if computing.done():
                return computing.result()
            if leaving.done():
                raise ClientDisconnect
            raise Unready(
                f"Expected to be done within {LONGEST_S:g} s. The service has too much to do: try again later."
            )
        finally:
            leaving.cancel()
            if not computing.done():
                self._abandon(computing, meter, has_begun=has_begun)

    def _abandon(self, computing: asyncio.Task[Any], meter: Meter, *, has_begun: bool) -> None:
        """Let go of work. A thread can't be ended from here: it has its turn until it looks at the meter."""
        meter.abandon()
        if not has_begun:
            computing.cancel()
        self._abandoned.add(computing)
        computing.add_done_callback(self._forget)

    def _forget(self, computing: asyncio.Task[Any]) -> None:
        self._abandoned.discard(computing)
        if not computing.cancelled():
            computing.exception()  # looked at: nobody else does

    async def each(self, items: Iterator[T]) -> AsyncIterator[T]:
        """The items, each made in a turn."""
        end = object()
        while True:
            async with self._free:
                item = await to_thread.run_sync(next, items, end, limiter=self._threads)
            if item is end:
                return
            yield item  # type: ignore[misc]


async def _departure(request: Request) -> None:
    """Return once the client has left; its body has been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
