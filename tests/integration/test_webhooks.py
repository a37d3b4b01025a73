"""Webhooks by real requests: what is sent, in which order, what happens where a receiver fails, and what is shown."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from app.cli import app
from app.client import FettleClient
from app.store import delivering
from app.store.engine import Database
from app.store.tables import IdempotencyKey, Webhook
from tests.integration.conftest import RunningService
from tests.support.processes import wait_for
from tests.support.receiver import Received, Receiver, receiving

LOOPBACK = {"webhook_allowed_networks": "127.0.0.0/8,::1/128", "webhook_timeout_s": 5.0, "webhook_retry_s": 0.05}
SECRET = "whsec_" + "A" * 32


@pytest.fixture
def open_service(database: Database, serve: Callable[..., Any]) -> Iterator[RunningService]:
    """A service whose webhooks may reach this machine."""
    with serve(database, **LOOPBACK) as running:
        yield running


@pytest.fixture
def on_sqlite(sqlite_database: Database, serve: Callable[..., Any]) -> Iterator[RunningService]:
    """The same where the database makes no difference."""
    with serve(sqlite_database, **LOOPBACK) as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def hook(service: RunningService, url: str, **fields: Any) -> dict[str, Any]:
    """A new webhook; the answer to its creation."""
    response = service.client.post("/v1/webhooks", json={"url": url, **fields})
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


def state(service: RunningService, created: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = service.client.get(f"/v1/webhooks/{created['id']}").json()
    return found


def log_of(service: RunningService, study_id: str) -> list[dict[str, Any]]:
    """All events of a study, as the API tells them."""
    answer = service.client.get(
        f"/v1/studies/{study_id}/events", params={"limit": 1000}, headers={"Accept": "application/json"}
    )
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def cancelled(service: RunningService, name: str) -> str:
    """A study that has come and gone; its id."""
    study = service.create(name=name)
    assert service.client.post(f"/v1/studies/{study['id']}:cancel").status_code == 200
    return str(study["id"])


def test_all_events_of_the_project_arrive_signed_and_in_order(open_service: RunningService, receiver: Receiver) -> None:
    earlier = cancelled(open_service, "earlier")
    created = hook(open_service, receiver.url)
    ids = [cancelled(open_service, f"study-{i}") for i in range(5)]
    for study_id in ids:
        expected = log_of(open_service, study_id)
        wait_for(lambda s=study_id, e=expected: receiver.events(s) == e, what="the events of a study, as in its log")
    assert not receiver.events(earlier), "what was before the webhook isn't told"
    for request in receiver.received:
        assert request.path == "/hook"
        assert request.is_signed_with(created["secret"])
        assert request.headers["content-type"] == "application/json"
        assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert len({request.id for request in receiver.received}) == len(receiver.received), "nothing came twice"
    now = wait_for(lambda: (s := state(open_service, created))["last_delivered_at"] and s)
    assert (now["state"], now["failures"], now["last_error"], now["last_status"]) == ("ACTIVE", 0, None, 204)


def test_only_wanted_types_and_only_one_study_where_told(open_service: RunningService, receiver: Receiver) -> None:
    wanted = open_service.create(name="wanted")["id"]
    hook(open_service, receiver.url, events=["study.finished"])
    with receiving() as of_one:
        hook(open_service, of_one.url, study_id=wanted)
        cancelled(open_service, "other")
        open_service.client.post(f"/v1/studies/{wanted}:cancel")
        wait_for(lambda: receiver.kinds() == ["study.finished"] * 2, what="two ends")
        wait_for(lambda: of_one.kinds()[-1:] == ["study.finished"], what="the end of one")
        assert {event["study_id"] for event in of_one.events()} == {wanted}
        seqs = [event["seq"] for event in of_one.events()]
        assert seqs == list(range(seqs[0], seqs[-1] + 1))


def test_a_failing_receiver_gets_the_same_message_again_until_it_takes_it(open_service: RunningService) -> None:
    answers = iter([500, 503, 302, 404])

    def answer(_: Received) -> int:
        return next(answers, 204)

    with receiving(answer=answer, headers={"Location": "http://169.254.169.254/"}) as receiver:
        created = hook(open_service, receiver.url)
        study_id = open_service.create(name="first")["id"]
        wait_for(lambda: len(receiver.received) >= 2)
        open_service.client.post(f"/v1/studies/{study_id}:cancel")  # more events do not change what is under way
        expected = log_of(open_service, study_id)
        wait_for(lambda: receiver.events(study_id) == expected, what="all events in order")
        tries = receiver.received[:5]
        assert len({t.id for t in tries}) == 1
        assert len({t.body for t in tries}) == 1
        assert all(t.is_signed_with(created["secret"]) for t in tries)
        done = wait_for(lambda: (s := state(open_service, created))["failures"] == 0 and s)
        assert done["last_error"] is None


def test_the_state_says_what_is_wrong(on_sqlite: RunningService) -> None:
    with receiving(answer=lambda _: 302) as receiver:
        created = hook(on_sqlite, receiver.url)
        on_sqlite.create(name="first")
        told = wait_for(lambda: (s := state(on_sqlite, created))["failures"] >= 1 and s)
    assert told["last_status"] == 302
    assert "Redirects are not followed" in told["last_error"]
    assert told["failing_since"] <= told["last_attempt_at"] < told["next_attempt_at"]
    refused = wait_for(lambda: (s := state(on_sqlite, created))["last_status"] is None and s, what="a refusal")
    assert "ConnectError" in refused["last_error"]


def test_a_receiver_that_was_away_gets_everything_when_it_is_back(
    database: Database, serve: Callable[..., Any]
) -> None:
    with serve(database, **(LOOPBACK | {"webhook_timeout_s": 1.0})) as service:
        _away_and_back(service)


def _away_and_back(open_service: RunningService) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers: nobody accepts
        port = silent.getsockname()[1]
        created = hook(open_service, f"http://127.0.0.1:{port}/hook")
        study_id = cancelled(open_service, "unheard")
        wait_for(lambda: state(open_service, created)["failures"] >= 1, 60, "a failure")
    assert state(open_service, created)["last_error"].startswith("No answer within")
    with receiving() as receiver:
        with open_service.database.write() as session:  # the same webhook, its receiver moved
            row = session.scalars(select(Webhook)).one()
            row.url, row.next_attempt_at = receiver.url, 0.0
        expected = log_of(open_service, study_id)
        wait_for(lambda: receiver.events(study_id) == expected, 60, "everything")


def test_a_slow_receiver_holds_no_other_up(on_sqlite: RunningService, receiver: Receiver) -> None:
    let_go = threading.Event()

    def slow(_: Received) -> int:
        let_go.wait(60)
        return 204

    with receiving(answer=slow) as slowest:
        for _ in range(8):
            hook(on_sqlite, slowest.url)
        hook(on_sqlite, receiver.url)
        study_id = cancelled(on_sqlite, "quick")
        wait_for(lambda: receiver.kinds(study_id)[-1:] == ["study.finished"], what="the quick one's events")
        assert not slowest.accepted
        let_go.set()
        wait_for(lambda: slowest.kinds(study_id)[-1:] == ["study.finished"], 60)


def test_one_that_fails_for_too_long_or_is_gone_is_disabled_and_can_be_resumed(
    sqlite_database: Database, serve: Callable[..., Any]
) -> None:
    broken = {"status": 410}
    with (
        serve(sqlite_database, **LOOPBACK, webhook_disable_after_s=0.3) as service,
        receiving(answer=lambda _: broken["status"]) as receiver,
    ):
        created = hook(service, receiver.url)
        study_id = cancelled(service, "lost")
        gone = wait_for(lambda: (s := state(service, created))["state"] == "DISABLED" and s)
        assert "410" in gone["state_reason"]
        assert len(receiver.received) == 1
        broken["status"] = 500
        assert service.client.post(f"/v1/webhooks/{created['id']}:pause").status_code == 409
        assert service.client.post(f"/v1/webhooks/{created['id']}:resume").json()["state"] == "ACTIVE"
        tired = wait_for(lambda: (s := state(service, created))["state"] == "DISABLED" and s)
        assert "failed for" in tired["state_reason"]
        assert tired["failures"] >= 2
        broken["status"] = 200
        service.client.post(f"/v1/webhooks/{created['id']}:resume")
        wait_for(lambda: receiver.events(study_id) == log_of(service, study_id), what="what it had missed")


def test_a_paused_webhook_gets_what_happened_meanwhile(open_service: RunningService, receiver: Receiver) -> None:
    created = hook(open_service, receiver.url)
    path = f"/v1/webhooks/{created['id']}"
    for _ in range(2):
        assert open_service.client.post(f"{path}:pause").json()["state"] == "PAUSED"
    study_id = cancelled(open_service, "meanwhile")
    with receiving() as other:
        hook(open_service, other.url)
        last = cancelled(open_service, "last")
        wait_for(lambda: other.kinds(last)[-1:] == ["study.finished"])
    assert not receiver.received
    for _ in range(2):
        assert open_service.client.post(f"{path}:resume").json()["state"] == "ACTIVE"
    wait_for(lambda: receiver.events(study_id) == log_of(open_service, study_id))


def test_deleted_studies_leave_the_rest_in_order(open_service: RunningService) -> None:
    blocked = threading.Event()
    with receiving(answer=lambda _: 500 if not blocked.is_set() else 204) as receiver:
        created = hook(open_service, receiver.url)
        of_one = open_service.create(name="its-own")["id"]
        own = hook(open_service, receiver.url, study_id=of_one)
        wait_for(lambda: state(open_service, created)["failures"] >= 1)  # a batch is under way, and its end recorded
        kept = cancelled(open_service, "kept")
        open_service.client.post(f"/v1/studies/{of_one}:cancel")
        assert open_service.client.delete(f"/v1/studies/{of_one}").status_code == 204
        assert open_service.client.get(f"/v1/webhooks/{own['id']}").status_code == 404, "it goes with its study"
        blocked.set()
        wait_for(lambda: receiver.events(kept) == log_of(open_service, kept), what="the events of the study that stays")


def test_two_processes_share_the_work_and_send_nothing_twice(database: Database, serve: Callable[..., Any]) -> None:
    with serve(database, **LOOPBACK) as one, serve(database, **LOOPBACK), receiving() as receiver:
        hook(one, receiver.url)
        with receiving() as second:
            hook(one, second.url)
            ids = [cancelled(one, f"study-{i}") for i in range(20)]
            for target in (receiver, second):
                wait_for(lambda t=target: t.kinds(ids[-1])[-1:] == ["study.finished"], 60)
                sent = [(e["study_id"], e["seq"]) for request in target.received for e in request.events]
                assert len(sent) == len(set(sent))
                for study_id in ids:
                    assert target.events(study_id) == log_of(one, study_id)


def test_a_test_message_tells_how_it_went(on_sqlite: RunningService) -> None:
    with receiving() as receiver:
        created = hook(on_sqlite, receiver.url)
        path = f"/v1/webhooks/{created['id']}:test"
        assert on_sqlite.client.post(path).json() == {"delivered": True, "status": 204, "error": None}
        (request,) = receiver.received
        assert request.is_signed_with(created["secret"])
        assert [event["type"] for event in request.events] == ["webhook.test"]
    told = on_sqlite.client.post(path).json()
    assert told["delivered"] is False
    assert "ConnectError" in told["error"]


def test_the_secret_is_shown_once_and_kept_out_of_lists_and_logs(
    on_sqlite: RunningService, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    headers = {"Idempotency-Key": "once"}
    body = {"url": receiver.url, "secret": SECRET}
    first = on_sqlite.client.post("/v1/webhooks", json=body, headers=headers)
    again = on_sqlite.client.post("/v1/webhooks", json=body, headers=headers)
    assert first.json()["secret"] == SECRET
    assert (again.json(), again.headers["location"]) == (first.json(), first.headers["location"])
    made = hook(on_sqlite, receiver.url)["secret"]
    assert made != hook(on_sqlite, receiver.url)["secret"]
    listed = on_sqlite.client.get("/v1/webhooks")
    assert [item["id"] for item in listed.json()["items"]][:1] == [first.json()["id"]]
    one = on_sqlite.client.get(first.headers["location"]).text
    cancelled(on_sqlite, "told")
    for secret in (SECRET, made):
        wait_for(lambda s=secret: any(request.is_signed_with(s) for request in receiver.received))
    with on_sqlite.database.read() as session:
        remembered = " ".join(session.scalars(select(IdempotencyKey.body)).all())  # type: ignore[arg-type]
    for secret in (SECRET, made):
        assert secret not in listed.text + one + remembered
        assert secret.removeprefix("whsec_") not in caplog.text
    bad = on_sqlite.client.post("/v1/webhooks", json=body | {"secret": "whsec_hunter2"})
    assert (bad.status_code, bad.json()["errors"][0]["loc"]) == (422, ["secret"])
    assert "hunter2" not in bad.text


def test_pages_of_webhooks(on_sqlite: RunningService, receiver: Receiver) -> None:
    ids = [hook(on_sqlite, receiver.url)["id"] for _ in range(3)]
    first = on_sqlite.client.get("/v1/webhooks", params={"limit": 2}).json()
    rest = on_sqlite.client.get("/v1/webhooks", params={"cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["items"] + rest["items"]] == ids
    assert rest["next_cursor"] is None
    assert on_sqlite.client.delete(f"/v1/webhooks/{ids[0]}").status_code == 204
    assert on_sqlite.client.get(f"/v1/webhooks/{ids[0]}").status_code == 404


def test_a_long_log_that_nobody_wants_is_passed_page_by_page(
    open_service: RunningService, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "PAGE", 30)
    monkeypatch.setattr(delivering, "BATCH", 10)
    created = hook(open_service, receiver.url, events=["study.finished"])
    path = f"/v1/webhooks/{created['id']}"
    open_service.client.post(f"{path}:pause")
    study_id = open_service.create(name="chatty", budget={"trials": 1000})["id"]
    for i in range(2 * delivering.PAGE + 5):
        open_service.client.patch(f"/v1/studies/{study_id}", json={"description": str(i)})
    open_service.client.post(f"/v1/studies/{study_id}:cancel")
    open_service.client.post(f"{path}:resume")
    wait_for(lambda: receiver.kinds() == ["study.finished"])
    with receiving() as all_of_it:
        everything = hook(open_service, all_of_it.url, study_id=study_id)
        with open_service.database.write() as session:
            session.scalars(select(Webhook).where(Webhook.public_id == everything["id"])).one().cursor_seq = 0
        expected = open_service.client.get(f"/v1/studies/{study_id}").json()["revision"]
        wait_for(lambda: all_of_it.kinds()[-1:] == ["study.finished"], 60)
        assert [e["seq"] for e in all_of_it.events()] == list(range(1, len(all_of_it.events()) + 1))
        assert len(all_of_it.events()) > expected > delivering.PAGE
        assert max(len(request.events) for request in all_of_it.received) == delivering.BATCH


def test_the_commands_and_the_client_do_what_the_api_does(on_sqlite: RunningService, receiver: Receiver) -> None:
    commands = CliRunner()

    def fettle(*arguments: str, code: int = 0) -> str:
        result = commands.invoke(app, ["webhooks", *arguments, "--url", on_sqlite.url])
        assert result.exit_code == code, result.output
        return result.output

    def parsed(*arguments: str) -> Any:
        # The service runs in this process: what it logs goes to the same place as what the command prints.
        lines = fettle(*arguments, "--json").splitlines()
        return json.loads(next(line for line in lines if line.startswith("{")))

    study = on_sqlite.create(name="followed")
    created = parsed("add", receiver.url, "--event", "study.finished", "--study", "followed")
    assert (created["events"], created["study_id"]) == (["study.finished"], study["id"])
    assert created["secret"].startswith("whsec_")
    assert f"Secret: {SECRET}" in fettle("add", receiver.url, "--secret", SECRET)
    assert receiver.url in fettle("show", created["id"])
    assert "answered 204" in fettle("test", created["id"])
    assert "PAUSED" in fettle("pause", created["id"])
    assert [item["state"] for item in parsed()["items"]] == ["PAUSED", "ACTIVE"]
    assert "PAUSED" in fettle()
    assert "ACTIVE" in fettle("resume", created["id"])
    receiver.answer = lambda _: 500
    assert "500" in fettle("test", created["id"], code=1)
    with FettleClient(on_sqlite.url) as client:
        assert next(client.webhooks()).id == created["id"]
        assert client.webhook(created["id"]).secret is None
    fettle("delete", created["id"])
    assert on_sqlite.client.get(f"/v1/webhooks/{created['id']}").status_code == 404
