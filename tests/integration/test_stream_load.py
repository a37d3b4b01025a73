"""Many streams and slow readers: no connection of the database is held, nobody waits for another."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.api.hub import BATCH, MAX_INBOX_BYTES
from app.store.engine import READ_POOL_SIZE, Database
from tests.integration.stream_clients import DEADLINE_S, append, numbers, parse_async, stream
from tests.support.processes import wait_for
from tests.support.streams import Follower, logged, whole_events


async def watching(client: httpx.AsyncClient, study_id: str, clients: int) -> list[asyncio.Task[list[int]]]:
    """So many streams of a study, each of which has its first event; what they give are the numbers they saw."""

    async def watch(ready: asyncio.Event) -> list[int]:
        seen: list[int] = []
        async with client.stream("GET", f"/v1/studies/{study_id}/events") as response:
            async for event in parse_async(response.aiter_lines()):
                seen.append(int(event["id"]))
                ready.set()
        return seen

    flags = [asyncio.Event() for _ in range(clients)]
    watchers = [asyncio.create_task(watch(flag)) for flag in flags]
    await asyncio.gather(*(flag.wait() for flag in flags))
    return watchers


def test_a_burst_larger_than_one_read_reaches_every_client_in_order(service: Any) -> None:
    study = service.create()
    burst, clients = 3 * BATCH + 7, READ_POOL_SIZE * 3

    async def run() -> list[list[int]]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=service.url, timeout=DEADLINE_S, limits=limits) as client:
            watchers = await watching(client, study["id"], clients)
            await asyncio.to_thread(append, service.database, study["id"], burst)
            await client.post(f"/v1/studies/{study['id']}:cancel")
            return await asyncio.gather(*watchers)

    for seen in asyncio.run(run()):
        assert seen == list(range(1, burst + 3))


def test_many_more_streams_than_connections(service: Any) -> None:
    """Every client gets every event, the endpoints still answer, and nothing stays open afterwards."""
    study = service.create()
    clients = READ_POOL_SIZE * 12

    async def run() -> list[list[int]]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=service.url, timeout=DEADLINE_S, limits=limits) as client:
            watchers = await watching(client, study["id"], clients)
            assert (await client.get("/readyz")).status_code == 200
            assert "fettle_open_streams 96.0" in (await client.get("/metrics")).text
            for _ in range(5):
                await asyncio.to_thread(append, service.database, study["id"], 20)
            await client.post(f"/v1/studies/{study['id']}:cancel")
            return await asyncio.gather(*watchers)

    for seen in asyncio.run(run()):
        assert seen == list(range(1, 103))
    wait_for(lambda: service.app.state.service.hub.open_streams == 0)


def test_a_client_that_cannot_keep_up_is_closed(
    serve: Callable[..., Any], sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.hub.MAX_INBOX_BYTES", 200_000)
    with serve(sqlite_database) as service:
        study = service.create()
        hub = service.app.state.service.hub
        with service.client.stream("GET", f"/v1/studies/{study['id']}/events") as response:
            lines = response.iter_lines()
            next(lines)
            wait_for(lambda: hub.open_streams == 1)
            (inbox,) = next(iter(hub._channels.values())).inboxes
            told = 1
            # It reads nothing while more is told than the sockets and its inbox hold.
            while not inbox.is_closed:
                append(sqlite_database, study["id"], 25, padding="x" * 20_000)
                told += 25
                assert told < 5_000
            seen = [int(line[4:]) for line in lines if line.startswith("id: ")]
        assert seen == list(range(2, seen[-1] + 1)), "what came before the end has no gap"
        assert seen[-1] < told
        resumed = stream(service, f"/v1/studies/{study['id']}/events?follow=false&after={seen[-1]}")
        assert numbers(resumed) == list(range(seen[-1] + 1, told + 1))


def test_a_client_that_takes_nothing_at_all_is_cut_off(serve: Callable[..., Any], sqlite_database: Database) -> None:
    with serve(sqlite_database, stream_ping_s=0.1, write_timeout_s=0.2) as service:
        study = service.create()
        append(sqlite_database, study["id"], 400, padding="x" * 50_000)
        hub = service.app.state.service.hub
        address = ("127.0.0.1", httpx.URL(service.url).port or 0)
        with socket.create_connection(address) as deaf:
            deaf.sendall(f"GET /v1/studies/{study['id']}/events?after=399 HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            wait_for(lambda: hub.open_streams == 1)
            append(sqlite_database, study["id"], 400, padding="x" * 50_000)
            wait_for(lambda: hub.open_streams == 0)


def test_open_streams_hold_no_connection_of_the_database(service: Any) -> None:
    study = service.create()
    clients, database = READ_POOL_SIZE * 12, service.app.state.database
    hub = service.app.state.service.hub
    followers = [
        Follower(service.url, path, {study["id"]})
        for path in (f"/v1/studies/{study['id']}/events", "/v1/events")
        for _ in range(clients // 2)
    ]
    for follower in followers:
        follower.start()
    wait_for(lambda: hub.open_streams == clients, what="open streams")
    # Only the one reader takes a connection, for the length of a look.
    for engine in {database._reader, database._writer}:
        wait_for(lambda pool=engine.pool: pool.checkedout() == 0, what="no connection in use")
        assert engine.pool.checkedout() <= 1
    for _ in range(20):
        append(service.database, study["id"], 5)
        assert service.client.get(f"/v1/studies/{study['id']}").status_code == 200
    if not database.is_sqlite:
        with service.database.read() as session:
            query = text(
                "SELECT count(*) FILTER (WHERE state <> 'idle') AS busy, count(*) AS open FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            busy, held = session.execute(query).one()
        assert busy <= 1
        assert held <= READ_POOL_SIZE
    service.client.post(f"/v1/studies/{study['id']}:cancel")
    log = logged(service.database)[study["id"]]
    for follower in followers:
        follower.join(DEADLINE_S)
        assert (follower.seen, follower.statuses[:1]) == (log, [200])
    wait_for(lambda: hub.open_streams == 0, what="no open stream")


@pytest.fixture
def impatient(serve: Callable[..., Any], database: Database) -> Iterator[Any]:
    """A service that leaves clients which take nothing for a second."""
    with serve(database, write_timeout_s=1.0) as running:
        yield running


def test_a_reader_that_reads_nothing_is_bounded_slows_nobody_and_resumes(impatient: Any) -> None:
    study = impatient.create()
    hub, path = impatient.app.state.service.hub, f"/v1/studies/{study['id']}/events"
    with impatient.client.stream("GET", path) as deaf:
        wait_for(lambda: hub.open_streams == 1, what="its stream")
        (inbox,) = next(iter(hub._channels.values())).inboxes
        followers = [Follower(impatient.url, path, {study["id"]}) for _ in range(3)]
        for follower in followers:
            follower.start()
        wait_for(lambda: hub.open_streams == 4, what="the other streams")
        told, most = 1, 0
        while hub.open_streams == 4:
            append(impatient.database, study["id"], 5, padding="x" * 20_000)
            told += 5
            # The others are told at once, whatever the deaf one has not taken.
            wait_for(lambda told=told: all(len(f.seen) == told for f in followers), what="news for the others")
            most = max(most, inbox._bytes)
            assert told < 5_000
        assert 0 < most <= MAX_INBOX_BYTES
        seen = []
        with contextlib.suppress(
            httpx.RemoteProtocolError, httpx.ReadError
        ):  # cut in the middle of what it had not taken
            seen.extend(int(event["id"]) for event in whole_events(deaf.iter_raw()))
    assert seen == list(range(1, seen[-1] + 1))
    assert seen[-1] < told
    impatient.client.post(f"/v1/studies/{study['id']}:cancel")
    assert numbers(stream(impatient, path, **{"Last-Event-ID": str(seen[-1])})) == list(range(seen[-1] + 1, told + 2))
    for follower in followers:
        follower.join(DEADLINE_S)
        assert follower.seen == logged(impatient.database)[study["id"]]
        assert follower.broken == 0
