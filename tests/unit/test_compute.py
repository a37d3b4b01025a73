"""Computations in child processes: their results, their bounds, and their end."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import uvloop

from app.compute import Bounds, Pool
from app.errors import FieldError, InvalidDataset, TooExpensive, TooManyRequests
from tests.support import computations
from tests.support.processes import wait_for

T = TypeVar("T")
BOUNDS = Bounds(seconds=60, memory_bytes=200_000_000)
linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel limits memory on Linux alone")


@pytest.fixture(params=["asyncio", "uvloop"])
def with_pool(request: pytest.FixtureRequest) -> Callable[[Callable[[Pool], Awaitable[T]]], T]:
    """Runs a coroutine function with a pool that is closed afterwards, on either event loop."""

    def run(use: Callable[[Pool], Awaitable[T]]) -> T:
        async def whole() -> T:
            pool = Pool()
            try:
                return await use(pool)
            finally:
                await pool.close()

        factory = uvloop.new_event_loop if request.param == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(whole())

    return run


def test_a_result_comes_back_and_the_child_is_used_again(with_pool: Any) -> None:
    async def use(pool: Pool) -> list[int]:
        assert await pool.run(computations.add, 2, 3, bounds=BOUNDS) == 5
        return [await pool.run(computations.process_id, bounds=BOUNDS) for _ in range(2)]

    first, second = with_pool(use)
    assert first == second != os.getpid()
    assert not psutil.pid_exists(first), "it ends with the pool"


def test_calls_at_once_have_children_of_their_own(with_pool: Any) -> None:
    async def use(pool: Pool) -> list[int]:
        return await asyncio.gather(*(pool.run(computations.process_id, bounds=BOUNDS) for _ in range(2)))

    assert len(set(with_pool(use))) == 2


def test_an_error_in_words_comes_back_whole(with_pool: Any) -> None:
    async def use(pool: Pool) -> None:
        with pytest.raises(InvalidDataset) as raised:
            await pool.run(computations.fail_in_words, bounds=BOUNDS)
        assert raised.value.detail == "file: Expected rows. Received none"
        assert raised.value.errors == (FieldError(("file", 3), "Expected rows."),)
        with pytest.raises(TooManyRequests) as busy:
            await pool.run(computations.fail_for_now, bounds=BOUNDS)
        assert busy.value.retry_after_s == 7

    with_pool(use)


def test_a_bug_tells_its_traceback_and_costs_the_child(with_pool: Any) -> None:
    async def use(pool: Pool) -> tuple[int, int]:
        before = await pool.run(computations.process_id, bounds=BOUNDS)
        with pytest.raises(RuntimeError, match=r"(?s)break_down.*ZeroDivisionError: a bug"):
            await pool.run(computations.break_down, bounds=BOUNDS)
        return before, await pool.run(computations.process_id, bounds=BOUNDS)

    before, after = with_pool(use)
    assert before != after


@linux
def test_more_memory_than_allowed_is_refused_by_the_kernel(with_pool: Any) -> None:
    async def use(pool: Pool) -> int:
        with pytest.raises(TooExpensive, match="200 MB of memory"):
            await pool.run(computations.fill, 400_000_000, bounds=BOUNDS)
        return await pool.run(computations.fill, 100_000_000, bounds=BOUNDS)

    assert with_pool(use) == 100_000_000


@linux
def test_the_limit_is_on_top_of_what_the_child_takes_before(with_pool: Any) -> None:
    async def use(pool: Pool) -> None:
        for _ in range(5):
            await pool.run(computations.fill, 150_000_000, bounds=BOUNDS)

    with_pool(use)


def test_a_child_that_dies_is_told_in_words_and_replaced(with_pool: Any) -> None:
    async def use(pool: Pool) -> int:
        with pytest.raises(TooExpensive):
            await pool.run(computations.die, bounds=BOUNDS)
        return await pool.run(computations.add, 1, 1, bounds=BOUNDS)

    assert with_pool(use) == 2


def test_what_takes_too_long_is_killed(with_pool: Any, tmp_path: Path) -> None:
    note = tmp_path / "pid"

    async def use(pool: Pool) -> None:
        await pool.run(computations.add, 1, 1, bounds=BOUNDS)
        with pytest.raises(TooExpensive, match=r"computed in 0\.5 s"):
            await pool.run(computations.note_and_sleep, str(note), 600.0, bounds=Bounds(seconds=0.5))

    with_pool(use)
    assert not psutil.pid_exists(int(note.read_text()))


def test_a_cancelled_call_kills_its_child(with_pool: Any, tmp_path: Path) -> None:
    note = tmp_path / "pid"

    async def use(pool: Pool) -> None:
        call = asyncio.ensure_future(pool.run(computations.note_and_sleep, str(note), 600.0, bounds=BOUNDS))
        await asyncio.to_thread(wait_for, lambda: note.exists() and note.read_text(), 60, "a child that sleeps")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    with_pool(use)
    assert not psutil.pid_exists(int(note.read_text()))


def test_what_a_library_prints_is_no_answer(with_pool: Any) -> None:
    async def use(pool: Pool) -> str:
        return await pool.run(computations.print_then_answer, "noise", bounds=BOUNDS)

    assert with_pool(use) == "noise"


def test_children_take_no_library_from_the_current_folder(
    with_pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("app", "random", "pickle", "struct"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the user')", encoding="ascii")
    monkeypatch.chdir(tmp_path)

    async def use(pool: Pool) -> list[str]:
        return await pool.run(computations.search_path, bounds=BOUNDS)

    assert not {"", str(tmp_path)} & set(with_pool(use))
