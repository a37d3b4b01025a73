"""The streams, over a real server: what they tell, how they begin, and how they end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import delete

from app.store.engine import Database
from app.store.tables import Event, Study
from tests.integration.stream_clients import DEADLINE_S, append, numbers, parse, stream
from tests.support.processes import wait_for


def test_a_finished_study_is_told_from_the_beginning_and_closes(service: Any) -> None:
    study = service.create()
    append(service.database, study["id"], 1_200)
    service.client.post(f"/v1/studies/{study['id']}:cancel")
    events = stream(service, f"/v1/studies/{study['id']}/events")
    assert numbers(events) == list(range(1, 1_203))
    assert events[0]["event"] == "study.created"
    assert events[-1]["event"] == "study.finished"
    for event in events:
        data = json.loads(event["data"])
        assert data["seq"] == int(event["id"])
        assert data["type"] == event["event"]
        assert data["study_id"] == study["id"]
        assert data["at"].endswith("Z")
    finished = json.loads(events[-1]["data"])
    assert finished["state"] == "CANCELLED"
    assert finished["progress"]["total_budget"] == 10
    assert finished["best"] is None


def test_a_client_resumes_after_the_last_event_that_it_saw(service: Any) -> None:
    study = service.create()
    append(service.database, study["id"], 50)
    service.client.post(f"/v1/studies/{study['id']}:cancel")
    path = f"/v1/studies/{study['id']}/events"
    assert numbers(stream(service, path, **{"Last-Event-ID": "40"})) == list(range(41, 53))
    assert numbers(stream(service, f"{path}?after=51")) == [52]
    # The header is the browser's word on a reconnect to the same URL.
    assert numbers(stream(service, f"{path}?after=3", **{"Last-Event-ID": "50"})) == [51, 52]


def test_a_client_that_has_seen_the_end_is_told_to_stay_away(service: Any) -> None:
    study = service.create()
    path = f"/v1/studies/{study['id']}/events"
    assert stream(service, f"{path}?follow=false&after=1") == []
    service.client.post(f"/v1/studies/{study['id']}:cancel")
    assert service.client.get(path, headers={"Last-Event-ID": "2"}).status_code == 204
    assert service.client.get(f"{path}?after=2").status_code == 204
    assert numbers(stream(service, path, **{"Last-Event-ID": "1"})) == [2]


def test_events_arrive_while_they_happen_without_gap_or_repetition(service: Any) -> None:
    study = service.create()
    path = f"/v1/studies/{study['id']}/events"

    def tell() -> None:
        for _ in range(40):
            append(service.database, study["id"], 7)
        service.client.post(f"/v1/studies/{study['id']}:cancel")

    teller = threading.Thread(target=tell)
    teller.start()
    seen: list[int] = []
    last = "0"
    # Leave and come back every 30 events, as a browser on a bad line does.
    while not seen or seen[-1] < 282:
        with httpx.stream("GET", service.url + path, headers={"Last-Event-ID": last}, timeout=DEADLINE_S) as response:
            if response.status_code == 204:
                break
            for i, event in enumerate(e for e in parse(response.iter_lines()) if "comment" not in e):
                seen.append(int(event["id"]))
                last = event["id"]
                if i == 30:
                    break
    teller.join()
    assert seen == list(range(1, 283))


def test_follow_false_sends_what_there_is(service: Any) -> None:
    study = service.create()
    append(service.database, study["id"], 3)
    assert numbers(stream(service, f"/v1/studies/{study['id']}/events?follow=false")) == [1, 2, 3, 4]


def test_json_gives_pages_of_the_same_events(service: Any) -> None:
    study = service.create()
    append(service.database, study["id"], 6)
    path = f"/v1/studies/{study['id']}/events"
    seen, cursor = [], None
    while True:
        query: dict[str, Any] = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = service.client.get(path, params=query, headers={"Accept": "application/json"}).json()
        seen += [item["seq"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    mixed = {"Accept": "application/json, text/plain, */*"}
    assert service.client.get(f"{path}?after=5", headers=mixed).json()["items"][0]["seq"] == 6


def test_events_that_are_no_longer_kept_are_announced(service: Any) -> None:
    study = service.create()
    append(service.database, study["id"], 20)
    with service.database.write() as session:
        session.execute(delete(Event).where(Event.seq <= 10))
    events = stream(service, f"/v1/studies/{study['id']}/events?follow=false&after=4")
    assert events[0] == {"event": "reset", "data": '{"first_seq": 11}'}
    assert numbers(events[1:]) == list(range(11, 22))
    assert numbers(stream(service, f"/v1/studies/{study['id']}/events?follow=false&after=10")) == list(range(11, 22))
    with service.database.write() as session:
        session.execute(delete(Event))
    events = stream(service, f"/v1/studies/{study['id']}/events?follow=false")
    assert events == [{"event": "reset", "data": '{"first_seq": 22}'}]


def test_a_quiet_stream_is_kept_alive_by_comments(serve: Callable[..., Any], sqlite_database: Database) -> None:
    with serve(sqlite_database, stream_ping_s=0.05) as service:
        study = service.create()
        with service.client.stream("GET", f"/v1/studies/{study['id']}/events?after=1") as response:
            assert next(parse(response.iter_lines())) == {"comment": ": ping"}


def test_comments_fill_every_silence_not_only_the_first(serve: Callable[..., Any], sqlite_database: Database) -> None:
    with serve(sqlite_database, stream_ping_s=0.05) as service:
        study = service.create()
        with service.client.stream("GET", f"/v1/studies/{study['id']}/events?after=1") as response:
            events = parse(response.iter_lines())
            for number in range(2, 5):
                assert next(events) == {"comment": ": ping"}
                append(sqlite_database, study["id"], 1)
                told = next(event for event in events if "comment" not in event)
                assert told["id"] == str(number)


def test_a_client_that_leaves_frees_its_stream(service: Any) -> None:
    study = service.create()
    hub = service.app.state.service.hub
    with service.client.stream("GET", f"/v1/studies/{study['id']}/events") as response:
        lines = response.iter_lines()
        next(lines)
        wait_for(lambda: hub.open_streams == 1)
    wait_for(lambda: hub.open_streams == 0)


def test_a_deleted_study_ends_its_streams(service: Any) -> None:
    study = service.create()
    with service.client.stream("GET", f"/v1/studies/{study['id']}/events") as response:
        lines = response.iter_lines()
        next(lines)
        with service.database.write() as session:
            session.execute(delete(Study).where(Study.public_id == study["id"]))
        assert all(not line.startswith("id: 2") for line in lines)


def test_the_firehose_tells_all_studies_and_resumes(service: Any) -> None:
    first, second = service.create(name="a"), service.create(name="b")
    for _ in range(3):
        append(service.database, first["id"], 2)
        append(service.database, second["id"], 2)
    events = stream(service, "/v1/events?follow=false")
    assert len(events) == 14
    for study in (first, second):
        own = [json.loads(e["data"])["seq"] for e in events if json.loads(e["data"])["study_id"] == study["id"]]
        assert own == list(range(1, 8))
    for i in (0, 5, 12):
        rest = stream(service, "/v1/events?follow=false", **{"Last-Event-ID": events[i]["id"]})
        assert rest == events[i + 1 :]
    with service.client.stream("GET", "/v1/events?after=latest") as response:
        append(service.database, first["id"], 1)
        assert json.loads(next(parse(response.iter_lines()))["data"])["seq"] == 8
    page = service.client.get("/v1/events?limit=10", headers={"Accept": "application/json"}).json()
    more = service.client.get(
        "/v1/events", params={"cursor": page["next_cursor"]}, headers={"Accept": "application/json"}
    ).json()
    assert len(page["items"]) + len(more["items"]) == 15
    assert more["next_cursor"] is None


def test_the_firehose_loses_nothing_while_transactions_overlap(service: Any) -> None:
    """Several writers commit at once, in another order than they began: whoever follows sees every event."""
    studies = [service.create(name=f"s{i}")["id"] for i in range(4)]

    def tell(public_id: str) -> None:
        for _ in range(30):
            append(service.database, public_id, 2)

    tellers = [threading.Thread(target=tell, args=(public_id,)) for public_id in studies]
    seen: dict[str, list[int]] = {public_id: [] for public_id in studies}
    with service.client.stream("GET", "/v1/events") as response:
        for teller in tellers:
            teller.start()
        for event in parse(response.iter_lines()):
            if "comment" not in event:
                data = json.loads(event["data"])
                seen[data["study_id"]].append(data["seq"])
            if sum(map(len, seen.values())) == 4 * 61:
                break
    for teller in tellers:
        teller.join()
    assert all(numbers == list(range(1, 62)) for numbers in seen.values())


def test_a_stopping_server_does_not_wait_for_open_streams(sqlite_database: Database, tmp_path: Path) -> None:
    import os
    import signal
    import subprocess
    import sys

    environment = os.environ | {
        "FETTLE_DATABASE_URL": sqlite_database.url.render_as_string(),
        "FETTLE_DATA_DIR": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app", "--port", "0"]
    server = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        line = next(line for line in server.stderr if "running on" in line)
        url = line.split("running on ")[1].split()[0]
        with httpx.Client(base_url=url, timeout=DEADLINE_S) as client:
            definition = {
                "name": "a",
                "model": {"family": "function"},
                "hyperparameters": {"x0": 1.0},
                "objectives": [{"metric": "value"}],
                "budget": {"trials": 1},
            }
            study = client.post("/v1/studies", json=definition).json()
            with client.stream("GET", f"/v1/studies/{study['id']}/events") as response:
                lines = response.iter_lines()
                next(lines)
                begin = time.monotonic()
                server.send_signal(signal.SIGTERM)
                for _ in lines:
                    pass
            server.wait(DEADLINE_S)
            assert time.monotonic() - begin < 5
    finally:
        server.kill()
        server.wait()
        if server.stderr is not None:
            server.stderr.close()
