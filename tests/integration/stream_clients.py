"""Clients of streams for tests over a real server, and a log that grows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from sqlalchemy import select

from app.store import log
from app.store.engine import Database
from app.store.log import NewEvent
from app.store.tables import Study

DEADLINE_S = 60.0
"""Longest silence that a client waits for."""


def parse(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Server-sent events as their fields; comments as {"comment": …}."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            yield {"comment": line}
        elif line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield fields
            fields = {}


async def parse_async(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, str]]:
    fields: dict[str, str] = {}
    async for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif not line and fields:
            yield fields
            fields = {}


def append(database: Database, public_id: str, count: int, padding: str = "") -> None:
    """Tell `count` events of a study, in one transaction."""
    with database.write() as session:
        study = session.scalars(select(Study).where(Study.public_id == public_id)).one()
        fields = {"attempt": 1, "epoch": 0, "metrics": {"value": 1.0}, "padding": padding}
        events = [NewEvent("trial.metrics", fields, 0) for _ in range(count)]
        log.append(session, study.id, study.public_id, events, at=log.clock(session))


def stream(service: Any, path: str, **headers: str) -> list[dict[str, str]]:
    """All events of a stream that ends by itself."""
    with service.client.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        return [e for e in parse(response.iter_lines()) if "comment" not in e]


def numbers(events: list[dict[str, str]]) -> list[int]:
    return [int(e["id"]) for e in events]
