"""Creations without an `Idempotency-Key` whose COMMIT came through, but not the answer to it: they happen once."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import event, func, select, text, update

from app.api.webhooks import Webhook as ShownWebhook
from app.domain.access import Scope
from app.store import idempotency
from app.store.engine import Database
from app.store.idempotency import KEPT_S, OWN, OWN_KEPT_S, RecordedAnswer, own_key
from app.store.tables import ApiKey, AuditEntry, IdempotencyKey, Project, StoredDataset, Study, Trial, Webhook
from tests.integration.access import Locked, locked
from tests.integration.conftest import function_study, serving
from tests.support.data_files import csv_table
from tests.support.processes import wait_for

CHANGE = "INSERT INTO fettle_audit"
"""What each change of the audit log writes in its transaction."""


class Losing:
    """Loses the answers to the next `left` COMMITs of transactions with a statement that begins so: they happen."""

    def __init__(self, database: Database, statement: str, left: int) -> None:
        self.left = left
        self._database = database
        self._statement = statement
        self._marked: set[int] = set()
        self._commit = database.engine.dialect.do_commit

    @contextmanager
    def armed(self) -> Iterator[None]:
        engine = self._database.engine
        event.listen(engine, "before_cursor_execute", self._look)
        engine.dialect.do_commit = self._lose  # type: ignore[method-assign]
        try:
            yield
        finally:
            engine.dialect.do_commit = self._commit  # type: ignore[method-assign]
            event.remove(engine, "before_cursor_execute", self._look)

    def _look(self, connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(self._statement):
            self._marked.add(id(connection.connection.dbapi_connection))

    def _lose(self, pooled: Any) -> None:
        self._commit(pooled)
        connection = pooled.dbapi_connection
        if id(connection) not in self._marked or not self.left:
            return
        self._marked.discard(id(connection))
        self.left -= 1
        if self._database.is_sqlite:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error
        connection.close()
        raise psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly")


@pytest.fixture
def guarded(database: Database, tmp_path: Path) -> Iterator[Locked]:
    """A service with keys."""
    with serving(database, tmp_path, webhook_allowed_networks="127.0.0.0/8") as service:
        yield locked(service)


def lost(
    guarded: Locked, call: Callable[[], httpx.Response], statement: str = CHANGE, times: int = 1
) -> httpx.Response:
    """The answer of a call whose first COMMITs were not answered."""
    losing = Losing(guarded.service.app.state.service.database, statement, times)
    with losing.armed():
        response = call()
    assert losing.left == 0, f"nothing was lost: {response.text}"
    return response


def count(guarded: Locked, table: Any, *where: Any) -> int:
    with guarded.service.database.read() as session:
        return session.scalar(select(func.count()).select_from(table).where(*where)) or 0


def post(guarded: Locked, path: str, **request: Any) -> Callable[[], httpx.Response]:
    return lambda: guarded.call("POST", path, guarded.root, **request)


def changes(guarded: Locked, action: str) -> int:
    return count(guarded, AuditEntry, AuditEntry.action == action)


def test_a_study_is_created_once_and_answered_as_created(guarded: Locked) -> None:
    made = lost(guarded, post(guarded, "/v1/studies", json=function_study()))
    assert made.status_code == 201, made.text
    study = made.json()
    assert made.headers["location"] == f"/v1/studies/{study['id']}"
    assert made.headers["etag"] == f'"{study["revision"]}"'
    assert made.headers["content-type"] == "application/json"
    assert guarded.call("GET", made.headers["location"], guarded.root).json() == study
    assert (count(guarded, Study), changes(guarded, "study.create")) == (1, 1)
    again = post(guarded, "/v1/studies", json=function_study())()
    assert (again.status_code, again.json()["code"]) == (409, "NAME_TAKEN"), "another request is another one"


def test_a_trial_is_enqueued_once_and_each_request_enqueues_its_own(guarded: Locked) -> None:
    study = guarded.create()["id"]
    call = post(guarded, f"/v1/studies/{study}/trials", json={"hyperparameters": {"x0": 1.0}})
    answers = [lost(guarded, call), call(), lost(guarded, call)]
    assert [a.status_code for a in answers] == [201] * 3
    assert [a.json()["number"] for a in answers] == [0, 1, 2]
    assert (count(guarded, Trial), changes(guarded, "trial.enqueue")) == (3, 3)


def test_a_key_that_the_client_gave_holds_as_well(guarded: Locked) -> None:
    study = guarded.create()["id"]
    given = {"json": {"hyperparameters": {"x0": 1.0}}, "headers": {"Idempotency-Key": "mine"}}
    call = post(guarded, f"/v1/studies/{study}/trials", **given)
    first, again = lost(guarded, call), call()
    assert (first.status_code, again.status_code, first.json()) == (201, 201, again.json())
    assert count(guarded, Trial) == 1


def test_a_project_a_webhook_and_a_data_set_are_made_once(guarded: Locked) -> None:
    project = lost(guarded, post(guarded, "/v1/projects", json={"name": "team"}))
    assert (project.status_code, project.json()["name"]) == (201, "team")
    assert (count(guarded, Project, Project.name == "team"), changes(guarded, "project.create")) == (1, 1)

    hook = lost(guarded, post(guarded, "/v1/webhooks", json={"url": "http://127.0.0.1:9/hook"}))
    assert hook.status_code == 201, hook.text
    with guarded.service.database.read() as session:
        row = session.scalars(select(Webhook)).one()
        kept = session.scalars(select(IdempotencyKey.body).where(IdempotencyKey.key.startswith(OWN))).all()
    shown = ShownWebhook.model_validate(hook.json())
    assert (shown.id, shown.secret) == (row.public_id, row.secret)
    assert row.secret not in str(kept)

    files = {"file": ("table.csv", csv_table())}
    data = lost(guarded, post(guarded, "/v1/datasets", files=files, data={"name": "table", "target": "churned"}))
    assert data.status_code == 201, data.text
    assert (count(guarded, StoredDataset), changes(guarded, "dataset.create")) == (1, 1)


def test_a_key_that_is_made_or_rotated_is_told_and_works(guarded: Locked) -> None:
    made = lost(guarded, post(guarded, "/v1/keys", json={"name": "ci", "scopes": ["read"]}))
    assert made.status_code == 201, made.text
    key = made.json()
    assert made.headers["location"] == f"/v1/keys/{key['id']}"
    assert (count(guarded, ApiKey, ApiKey.name == "ci"), changes(guarded, "key.create")) == (1, 1)

    def status(text: str) -> int:
        headers = {"Authorization": f"Bearer {text}"}
        return guarded.service.client.get("/v1/studies", headers=headers).status_code

    assert status(key["key"]) == 200
    path = f"/v1/keys/{key['id']}:rotate"
    rotated = lost(guarded, post(guarded, path, json={"grace_seconds": 600}))
    assert (rotated.status_code, rotated.json()["id"]) == (200, key["id"])
    assert changes(guarded, "key.rotate") == 1
    # The grace is for the secret that clients have, not for one that nobody was told.
    assert (status(rotated.json()["key"]), status(key["key"])) == (200, 200)
    with guarded.service.database.read() as session:
        kept = "".join(session.scalars(select(IdempotencyKey.body)).all())  # type: ignore[arg-type]
    for told in (key["key"], rotated.json()["key"]):
        assert told not in kept
        assert told.rpartition("_")[2] not in kept


def test_a_refusal_leaves_nothing_and_an_ask_records_nothing(guarded: Locked) -> None:
    study = guarded.create(model={"family": "external"})["id"]
    before = count(guarded, IdempotencyKey)
    assert post(guarded, "/v1/keys", json={"name": "root"})().status_code == 409
    worker = guarded.by_scope[Scope.WORK]
    path = f"/v1/studies/{study}/trials:ask"
    asked = guarded.call("POST", path, worker, json={"count": 2})
    assert len(asked.json()["items"]) == 2
    assert count(guarded, IdempotencyKey) == before


def test_a_try_that_was_rolled_back_is_made_again(guarded: Locked) -> None:
    """Nothing had happened: the second try finds no answer, works, and the answer to its COMMIT may be lost as well."""
    study = guarded.create()["id"]
    engine = guarded.service.app.state.service.database.engine
    failed: list[str] = []

    def fail_once(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO fettle_idempotency_keys") and not failed:
            failed.append(statement)
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error if engine.dialect.name == "sqlite" else psycopg.errors.DeadlockDetected("deadlock detected")

    event.listen(engine, "before_cursor_execute", fail_once)
    try:
        enqueue = post(guarded, f"/v1/studies/{study}/trials", json={"hyperparameters": {"x0": 1.0}})
        made = lost(guarded, enqueue)
    finally:
        event.remove(engine, "before_cursor_execute", fail_once)
    assert (len(failed), made.status_code, count(guarded, Trial)) == (1, 201, 1)
    assert count(guarded, IdempotencyKey, IdempotencyKey.status.is_(None)) == 0


def test_a_commit_that_is_still_under_way_is_waited_for(postgres_database: Database) -> None:
    key, found = own_key(), []

    def try_again() -> None:
        with postgres_database.write() as session:
            found.append(idempotency.claim_own(session, "default", key))

    with postgres_database.write() as session:
        idempotency.record_own(session, "default", key, RecordedAnswer(201, {"Location": "/v1/x"}, "{}"))
        second = threading.Thread(target=try_again)
        second.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")

        def waits() -> int:
            with postgres_database.read() as looking:
                return looking.scalar(waiting) or 0

        wait_for(waits, what="the second try to wait for the first")
        assert found == []
    second.join(30)
    assert found == [RecordedAnswer(201, {"Location": "/v1/x"}, "{}")]


def test_requests_own_keys_are_forgotten_after_an_hour_and_clients_after_a_day(database: Database) -> None:
    own, old_own, theirs, old_theirs = own_key(), own_key(), "theirs", "old-theirs"
    with database.write() as session:
        for key in (own, old_own, theirs, old_theirs):
            idempotency.record_own(session, "default", key, RecordedAnswer(201, {}, "{}"))
        for key, age_s in ((old_own, OWN_KEPT_S), (theirs, OWN_KEPT_S), (old_theirs, KEPT_S)):
            aged = IdempotencyKey.created_at - age_s
            session.execute(update(IdempotencyKey).where(IdempotencyKey.key == key).values(created_at=aged))
    assert database.run(idempotency.forget_old) == 2
    with database.read() as session:
        assert set(session.scalars(select(IdempotencyKey.key))) == {own, theirs}
