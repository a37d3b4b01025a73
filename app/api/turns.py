"""Turns for what computes: few at a time, on threads or in processes of their own, so that simple calls find one.

Waiting for a turn takes no thread. What is metered ends once its client has left. An export takes a turn for each batch
of trials and gives it back while the batch is sent: a client that reads slowly keeps nobody waiting, and several
exports advance side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar, TypeVarTuple

from anyio import CapacityLimiter, to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from app.compute import Bounds, Pool
from app.domain.effort import Meter
from app.errors import Unready

AT_ONCE = 2
PATIENCE_S = 20.0
"""How long a request waits for its turn before the service says that it is too busy."""
LONGEST_S = 30.0
"""How long metered work may take besides: its steps are bounded, but not what else the machine does."""

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Turns:
    """The turns of one API process. All methods belong to its event loop."""

    def __init__(self, at_once: int = AT_ONCE, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._free = asyncio.Semaphore(at_once)
        self._threads = CapacityLimiter(at_once)
        self._pool = Pool()
        self._abandoned: set[asyncio.Task[Any]] = set()

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, on a thread.

        Raises:
            Unready: others are being computed.
        """
        async with self._turn():
            return await to_thread.run_sync(work, limiter=self._threads)

    async def metered(self, request: Request, work: Callable[[Meter], T]) -> T:
        """The result of `work` on a thread, as `run`; its meter makes it end once the client has left.

        For what is quick as a rule, and bounded by its steps. The request's body was read.

        Raises:
            TooExpensive: it takes more steps than a request may cause.
            Unready: others are being computed, or it takes too long.
            ClientDisconnect: nobody waits for the answer any more.
        """
        meter, has_begun = Meter(), False

        def begin() -> T:
            nonlocal has_begun
            has_begun = True
            return work(meter)

        computing, left = asyncio.create_task(self.run(begin)), asyncio.create_task(_departure(request))
        try:
            longest_s = self._patience_s + LONGEST_S
            await asyncio.wait({computing, left}, timeout=longest_s, return_when=asyncio.FIRST_COMPLETED)
            if computing.done():
                return computing.result()
            if left.done():
                raise ClientDisconnect
            raise Unready(
                f"Expected to be done within {longest_s:g} s. The service is too busy: try again in a moment."
            )
        finally:
            left.cancel()
            if not computing.done():
                self._abandon(computing, meter, has_begun=has_begun)

    def _abandon(self, computing: asyncio.Task[Any], meter: Meter, *, has_begun: bool) -> None:
        """Let go of metered work. Its thread can't be ended from here: it keeps its turn until it meets the meter."""
        meter.abandon()
        if not has_begun:
            computing.cancel()
        self._abandoned.add(computing)
        computing.add_done_callback(self._forget)

    def _forget(self, computing: asyncio.Task[Any]) -> None:
        self._abandoned.discard(computing)
        if not computing.cancelled():
            computing.exception()  # looked at, or asyncio would complain that nobody did

    async def compute(
        self, request: Request, function: Callable[[*Args], T], *arguments: *Args, bounds: Bounds | None = None
    ) -> T:
        """The result of a module-level function in a child process, which is killed when the client leaves.

        For what takes long or much: see `app.compute`. Arguments and result are pickled. The request's body was read.

        Raises:
            FettleError: the function's own.
            TooExpensive: it took more time or memory than it may.
            Unready: others are being computed, or no process can be started.
            ClientDisconnect: nobody waits for the answer any more.
        """
        async with self._turn():
            work = asyncio.ensure_future(self._pool.run(function, *arguments, bounds=bounds or Bounds()))
            return await _while_wanted(request, work)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._free.acquire()
        except TimeoutError:
            raise Unready(
                f"Expected a turn to compute within {self._patience_s:g} s. Others are being computed: try again in a "
                "moment."
            ) from None
        try:
            yield
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

    async def close(self) -> None:
        """End the child processes that wait for work."""
        await self._pool.close()


async def _while_wanted(request: Request, work: asyncio.Future[T]) -> T:
    """The result of `work`, which is cancelled as soon as the client has left."""
    left = asyncio.ensure_future(_departure(request))
    both: set[asyncio.Future[Any]] = {work, left}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        for task in both:
            task.cancel()
        await asyncio.wait(both)


async def _departure(request: Request) -> None:
    """Returns when the client is gone. Of a request whose body was read nothing else is left to receive."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
