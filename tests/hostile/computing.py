"""Where a service computes: what its threads call while they hold a write transaction, and on its event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from sqlalchemy import event

from app.domain.study import StudyDefinition
from app.store.engine import Database
from tests.support.processes import ROOT

COMPUTES = (
    "app/domain/check",
    "app/domain/combinations.py",
    "app/domain/layers/",
    "app/domain/memory.py",
    "app/domain/size",
    "app/domain/space.py",
    "app/domain/stored.py",
    "app/domain/warm_start.py",
    "app/tuning/",
    "app/api/preparation.py",
    "app/api/validation.py",
    "app/api/warm_start.py",
)
"""Modules whose work grows with a definition, or with a study's trials."""
SPACES = {"StudyDefinition.searched", "StudyDefinition.fixed"}
LARGE = 20_000
"""Characters of a JSON text that is quick to read or write."""


class Watch:
    """What was called where nothing may be computed, for each operation that was named."""

    def __init__(self) -> None:
        self.operation = ""
        self.found: dict[str, set[str]] = {}
        self.transactions: dict[str, int] = {}

    def begun(self, *_: Any) -> None:
        """A write transaction begins on this thread."""
        self.transactions[self.operation] = self.transactions.get(self.operation, 0) + 1
        sys.setprofile(self.profile)

    def ended(self, *_: Any) -> None:
        """It ends."""
        sys.setprofile(None)

    def profile(self, frame: FrameType, what: str, value: Any) -> None:
        """Note a call of this thread, where it computes."""
        if what == "call":
            called = _computing(frame.f_code) or _definition(frame) or _large_reading(frame)
        else:
            called = _large_writing(frame, value) if what == "return" else None
        if called is not None:
            self.found.setdefault(self.operation, set()).add(called)


def _computing(code: CodeType) -> str | None:
    path = code.co_filename
    if not path.startswith(str(ROOT)) or code.co_name == "<module>":
        return None
    place = str(Path(path).relative_to(ROOT))
    is_import = code.co_qualname.split(".")[0] == code.co_name and code.co_name[:1].isupper()  # a class' body
    if not is_import and (place.startswith(COMPUTES) or code.co_qualname in SPACES):
        return f"{place}: {code.co_qualname}"
    return None


def _definition(frame: FrameType) -> str | None:
    """A definition that pydantic reads or writes."""
    if not frame.f_code.co_filename.endswith("pydantic/main.py") or not frame.f_code.co_name.startswith("model_"):
        return None
    model = frame.f_locals.get("self", frame.f_locals.get("cls"))
    is_one = isinstance(model, StudyDefinition) or model is StudyDefinition
    return f"StudyDefinition.{frame.f_code.co_name}" if is_one else None


def _large_reading(frame: FrameType) -> str | None:
    if frame.f_code.co_qualname == "JSONDecoder.decode" and len(frame.f_locals["s"]) > LARGE:
        return "json.loads of a large text"
    return None


def _large_writing(frame: FrameType, value: Any) -> str | None:
    writes = frame.f_code.co_qualname in {"JSONEncoder.encode", "BaseModel.model_dump_json"}
    return "a large JSON text is written" if writes and isinstance(value, str) and len(value) > LARGE else None


@contextmanager
def watching_writes(database: Database) -> Iterator[Watch]:
    """Watch all write transactions of a database in SQLite, whose reads have connections of their own."""
    assert database.is_sqlite
    watch = Watch()
    listeners: dict[str, Callable[..., None]] = {"begin": watch.begun, "commit": watch.ended, "rollback": watch.ended}
    for name, listener in listeners.items():
        event.listen(database.engine, name, listener)
    try:
        yield watch
    finally:
        for name, listener in listeners.items():
            event.remove(database.engine, name, listener)


@contextmanager
def watching_loop(loop: asyncio.AbstractEventLoop) -> Iterator[Watch]:
    """Watch what an event loop calls on its own thread, not in those that it has others compute in."""
    watch = Watch()

    async def profile(function: Any) -> None:
        sys.setprofile(function)

    asyncio.run_coroutine_threadsafe(profile(watch.profile), loop).result(30)
    try:
        yield watch
    finally:
        asyncio.run_coroutine_threadsafe(profile(None), loop).result(30)
