"""What streams cost: clients that don't read hold a bounded amount, and a project reads no other project's events."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, select, text

from app.api import hub as hubs
from app.api.backlog import Backlog
from app.api.hub import BATCH, PAGE_BYTES, Batch, Encoded, Inbox
from app.domain.json import dumps
from app.store import events
from app.store.engine import Database
from app.store.log import NewEvent, append_to, clock
from app.store.tables import Event, Study, table_of
from tests.integration.conftest import RunningService, serving
from tests.store.statements import counting_steps
from tests.support.processes import wait_for

BIG = 100_000
"""Characters of a large event."""


@pytest.fixture
def service(sqlite_database: Database, tmp_path: Path) -> Iterator[RunningService]:
    """A service; what streams hold doesn't depend on the database."""
    with serving(sqlite_database, tmp_path) as running:
        yield running


def tell(service: RunningService, study: dict[str, Any], count: int, size: int = BIG) -> None:
    """Tell so many events of a study, each of `size` characters."""
    with service.database.write() as session:
        key = session.scalars(select(Study.id).where(Study.public_id == study["id"])).one()
        told = [NewEvent("trial.metrics", {"padding": "x" * size}, trial=0)] * count
        append_to(session.connection(), key, study["id"], told, at=clock(session))


def unread(service: RunningService, path: str) -> socket.socket:
    """A client that asks for a stream and reads nothing."""
    address = httpx.URL(service.url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((address.host, address.port or 0))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return client


def test_unread_streams_hold_a_bounded_amount_together(service: RunningService) -> None:
    """Forty clients, each of a study of its own with 2 MB of events, of which none is read."""
    hub = service.app.state.service.hub
    hub.backlog.limit = limit = 2_000_000
    studies = [service.create(name=f"study-{i}") for i in range(40)]
    most = 0
    with ExitStack() as clients:
        for study in studies:
            tell(service, study, 15)
            clients.enter_context(unread(service, f"/v1/studies/{study['id']}/events"))
            most = max(most, hub.backlog.total)
        for study in studies:
            tell(service, study, 6)
            most = max(most, hub.backlog.total)
        assert service.client.get("/readyz").status_code == 200
        most = max(most, hub.backlog.total)
        assert 0 < most <= limit + BIG + 10_000
        with service.client.stream("GET", f"/v1/studies/{studies[0]['id']}/events?follow=false") as answer:
            seen = [int(line[4:]) for line in answer.iter_lines() if line.startswith("id: ")]
        assert seen == list(range(1, len(seen) + 1))
        assert len(seen) == 22
    wait_for(lambda: hub.backlog.total == 0, what="nothing that is held")
    assert (hub.backlog._held, hub.backlog._pieces) == ({}, {})


def test_what_several_clients_wait_for_is_held_once() -> None:
    backlog = Backlog(limit=1_000)
    inboxes = [Inbox(0, backlog) for _ in range(10)]
    shared = Batch([Encoded(1, b"x" * 400)])
    for inbox in inboxes:
        inbox.put(shared)
    assert backlog.total == 400
    inboxes[3].put(Batch([Encoded(2, b"y" * 500)]))
    assert (backlog.total, any(inbox.is_closed for inbox in inboxes)) == (900, False)
    inboxes[3].put(Batch([Encoded(3, b"z" * 400)]))
    # Those that have held for longest let go, until what is left fits: all that hold the first piece.
    assert backlog.total <= 1_000
    assert inboxes[0].is_closed


def test_a_batch_gives_what_is_beyond_a_place() -> None:
    batch = Batch([Encoded(at, f"<{at}>".encode()) for at in (3, 3, 4, 7)])
    assert [batch.after(at) for at in (0, 3, 5, 7)] == [b"<3><3><4><7>", b"<4><7>", b"<7>", b""]
    assert batch.after(2) is batch.wire


def test_pages_of_events_are_bounded_by_bytes(service: RunningService) -> None:
    study = service.create()
    tell(service, study, 80)
    headers = {"Accept": "application/json"}
    for path in (f"/v1/studies/{study['id']}/events", "/v1/events"):
        seen: list[int] = []
        cursor = None
        while True:
            params: dict[str, Any] = {"limit": 1000} if cursor is None else {"limit": 1000, "cursor": cursor}
            answer = service.client.get(path, params=params, headers=headers)
            assert len(answer.content) <= 4_000_000 + BIG
            seen += [event["seq"] for event in answer.json()["items"]]
            cursor = answer.json()["next_cursor"]
            if cursor is None:
                break
        assert seen == list(range(1, 82))
    with service.database.read() as session:
        key = session.scalars(select(Study.id)).one()
        page = events.read_log(session, key, 1, BATCH, PAGE_BYTES)
        assert page is not None
        assert (len(page.events), page.is_complete) == (4, False)
        end = events.read_log(session, key, 80, BATCH, PAGE_BYTES)
        assert end is not None
        assert (len(end.events), end.is_complete) == (1, True)


def test_a_tick_reads_so_much_of_all_logs_together(service: RunningService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "TICK_BYTES", 1_000_000)
    hub = service.app.state.service.hub
    studies = [service.create(name=f"study-{i}") for i in range(12)]
    with ExitStack() as joined:
        with service.database.read() as session:
            keys = list(session.scalars(select(Study.id).order_by(Study.id)))
        for study in studies:
            tell(service, study, 6)
        hub.is_closing = True  # so that its own reader leaves the channels alone
        for key in keys:
            joined.enter_context(hub.join(("study", key), 1))
        with service.database.read() as session:
            told = hub._reading()(session)
        assert sum(news.size for news in told.values()) <= 1_000_000 + PAGE_BYTES
        assert len(told) == 12
        assert sum(news.has_more for news in told.values()) >= 8
        hub.is_closing = False


@pytest.mark.parametrize("busy", [20, 20_000])
def test_a_quiet_project_reads_nothing_of_a_busy_one(service: RunningService, busy: int) -> None:
    quiet, other = service.create(name="quiet"), service.create(name="busy")
    with service.database.write() as session:
        key = session.scalars(select(Study.id).where(Study.public_id == other["id"])).one()
        session.execute(text("UPDATE fettle_studies SET project = 'busy' WHERE id = :id"), {"id": key})
        session.execute(text("UPDATE fettle_events SET project = 'busy' WHERE study_id = :id"), {"id": key})
        row = {"study_id": key, "type": "trial.metrics", "data": dumps({}), "project": "busy"}
        rows = [{**row, "seq": 2 + i, "position": 2**45 + i} for i in range(busy)]
        session.connection().execute(insert(table_of(Event)), rows)
        session.execute(text("ANALYZE"))
    with service.database.read() as session:
        first = events.project_events_after(session, "default", events.START, BATCH)
        assert [event.type for event in first] == ["study.created"]
        assert quiet["id"] in first[0].data
    with counting_steps(service.database) as steps, service.database.read() as session:
        assert events.project_page(session, "default", first[-1].position, BATCH).events == []
        assert events.latest_position(session, "default") == first[-1].position
    assert 0 < steps[0] < 500, "as many as with twenty events beside it"
