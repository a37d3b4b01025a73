"""The children that compute, as one event loop sees them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

import psutil

from app import start
from app.compute.bounds import Bounds
from app.compute.frames import HEAD, packed, unpacked
from app.errors import TooExpensive, Unready

log = logging.getLogger("fettle.compute")

START_S = 60.0
"""How long a child may take to start: an import or two, on a machine that is busy."""
IDLE_S = 120.0
"""A child that nobody needed for so long is ended."""
KEPT_BYTES = 400_000_000
"""A child that holds more than this afterwards is ended, and its memory is the machine's again."""
LARGEST_ANSWER = 256 * 2**20
"""Bytes: far more than any answer of ours; a length beyond it is no length."""
MODULE = "app.compute.child"

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Pool:
    """Children that are started when they are needed and kept warm for the next call. Belongs to one event loop.

    How many run at once is for the caller to bound.
    """

    def __init__(self) -> None:
        self._idle: list[_Child] = []
        self._dying: set[asyncio.Task[int]] = set()
        self._closed = False

    async def run(self, function: Callable[[*Args], T], *arguments: *Args, bounds: Bounds) -> T:
        """The result of a module-level function in a child. Cancelled, the child is killed.

        Arguments, result and the function's own `FettleError`s are pickled.

        Raises:
            FettleError: the function's own.
            TooExpensive: it took more time or memory than `bounds` allow.
            Unready: no child could be started.
            RuntimeError: the function raised anything else; the message holds its traceback.
        """
        child = await self._taken()
        kept = False
        try:
            async with asyncio.timeout(bounds.seconds):
                said, value = await child.ask(packed((function, arguments, bounds.memory_bytes)))
            kept = said in {"returned", "raised"}
        except TimeoutError:
            raise TooExpensive(
                f"Expected what can be computed in {bounds.seconds:g} s. It took longer and was ended: ask for less."
            ) from None
        except (EOFError, OSError):
            said, value = "memory", None  # it was killed, or a library gave up in mid-allocation
            log.warning("a child that computes died: %s", function.__qualname__)
        finally:
            if kept:
                self._put_back(child)
            else:
                self._end(child)
        if said == "returned":
            result: T = value
            return result
        if said == "raised":
            raise value
        if said == "memory":
            raise TooExpensive(
                f"Expected what can be computed in {bounds.memory_bytes / 1e6:,.0f} MB of memory. It needed more: ask "
                "for less."
            )
        raise RuntimeError(f"{function.__qualname__} failed in a child process:\n{value}")

    async def _taken(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            child.unwatch()
            if child.is_alive:
                return child
        try:
            return await _Child.started()
        except (OSError, EOFError, TimeoutError) as error:
            log.exception("no child could be started to compute")
            raise Unready("Expected a process to compute in. None could be started: try again in a moment.") from error

    def _put_back(self, child: _Child) -> None:
        if self._closed or child.memory_bytes() > KEPT_BYTES:
            self._end(child)
            return
        self._idle.append(child)
        child.watch(IDLE_S, self._forget)

    def _forget(self, child: _Child) -> None:
        self._idle.remove(child)
        self._end(child)

    def _end(self, child: _Child) -> None:
        """Kill a child, and see to it that the kernel may forget it."""
        child.kill()
        gone = asyncio.ensure_future(child.gone())
        self._dying.add(gone)
        gone.add_done_callback(self._dying.discard)

    async def close(self) -> None:
        """End the children that wait, now and from now on. Returns once they are gone."""
        self._closed = True
        while self._idle:
            child = self._idle.pop()
            child.unwatch()
            self._end(child)
        if self._dying:
            await asyncio.wait(self._dying)


def run_alone(function: Callable[[*Args], T], *arguments: *Args, bounds: Bounds) -> T:
    """The result of a module-level function in a child of its own, for callers without an event loop.

    Raises:
        FettleError, TooExpensive, Unready, RuntimeError: as `Pool.run` does.
    """

    async def once() -> T:
        pool = Pool()
        try:
            return await pool.run(function, *arguments, bounds=bounds)
        finally:
            await pool.close()

    return asyncio.run(once())


class _Child:
    """One child. It does one thing at a time."""

    def __init__(
        self, process: asyncio.subprocess.Process, orders: asyncio.StreamWriter, answers: asyncio.StreamReader
    ) -> None:
        self._process, self._orders, self._answers = process, orders, answers
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def started(cls) -> _Child:
        """A child that is ready."""
        process = await asyncio.create_subprocess_exec(
            *start.command(MODULE),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        if process.stdin is None or process.stdout is None:
            raise OSError("Expected pipes to the process. Received none")
        child = cls(process, process.stdin, process.stdout)
        try:
            async with asyncio.timeout(START_S):
                await child._answer()
        except BaseException:
            child.kill()
            raise
        return child

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    async def ask(self, order: bytes) -> tuple[str, Any]:
        """Send an order, and wait for what comes of it.

        Raises:
            EOFError, OSError: the child died.
        """
        self._orders.write(order)
        await self._orders.drain()
        return await self._answer()

    async def _answer(self) -> tuple[str, Any]:
        (length,) = HEAD.unpack(await self._answers.readexactly(HEAD.size))
        if length > LARGEST_ANSWER:
            raise EOFError
        said, value = unpacked(await self._answers.readexactly(length))
        return said, value

    def memory_bytes(self) -> int:
        """What it holds; more than any bound where that can't be told."""
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return sys.maxsize

    def watch(self, seconds: float, forget: Callable[[_Child], None]) -> None:
        """Have `forget` called after that time."""
        self._timer = asyncio.get_running_loop().call_later(seconds, forget, self)

    def unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def kill(self) -> None:
        """End it at once. Returns before it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def gone(self) -> int:
        """Its exit status, once it has one."""
        return await self._process.wait()
