"""The life of keys and projects: made, rotated, revoked and expired, by admins of one project and of all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.api import keyring
from app.api.exposure import pepper_of
from app.domain.access import Scope
from app.store import keys, projects
from app.store.engine import Database
from app.store.tables import Base
from tests.integration.access import Locked, locked, make_key, make_project
from tests.integration.conftest import function_study, serving
from tests.support.processes import wait_for


@pytest.fixture
def guarded(database: Database, tmp_path: Path) -> Iterator[Locked]:
    """A service with keys, which doesn't count how often one is refused."""
    with serving(database, tmp_path, rate_failures_per_minute=0) as service:
        yield locked(service)


# -- keys come and go -------------------------------------------------------------------------------------------------


def test_a_revoked_key_is_refused_everywhere_and_its_streams_end(database: Database, tmp_path: Path) -> None:
    with serving(database, tmp_path, stream_ping_s=0.2) as here, serving(database, tmp_path) as there:
        guarded = locked(here)
        study = guarded.create()["id"]
        reader = guarded.by_scope[Scope.READ]
        with httpx.stream("GET", f"{here.url}/v1/studies/{study}/events", headers=reader.headers, timeout=60) as stream:
            chunks = stream.iter_bytes()
            assert b"study.created" in next(chunks)
            assert there.client.get("/v1/studies", headers=guarded.root.headers).status_code == 200
            path = f"/v1/keys/{reader.id}"
            assert there.client.delete(path, headers=guarded.root.headers).status_code == 204
            assert there.client.get("/v1/studies", headers=reader.headers).status_code == 401
            assert keyring.FRESH_S == 5.0  # as the docs say
            began = time.monotonic()
            assert all(chunk == b": ping\n\n" for chunk in chunks)  # ends by itself, as a stream does
            assert time.monotonic() - began < 30
        assert here.client.get("/v1/studies", headers=reader.headers).status_code == 401
        assert there.client.delete(path, headers=guarded.root.headers).status_code == 204
        revoked = there.client.get(path, headers=guarded.root.headers).json()
        assert revoked["revoked_at"] is not None


@pytest.mark.parametrize("seconds", [False, True, "60", "NaN", -1, 10**12], ids=repr)
def test_seconds_of_keys_are_numbers_within_bounds(guarded: Locked, seconds: Any) -> None:
    reader = guarded.by_scope[Scope.READ]
    made = guarded.call("POST", "/v1/keys", guarded.root, json={"name": "brief", "expires_in_seconds": seconds})
    rotated = guarded.call("POST", f"/v1/keys/{reader.id}:rotate", guarded.root, json={"grace_seconds": seconds})
    for response, field in ((made, "expires_in_seconds"), (rotated, "grace_seconds")):
        assert response.status_code == 422, response.text
        assert response.json()["errors"][0]["loc"] == [field]
    assert guarded.service.client.get("/v1/studies", headers=reader.headers).status_code == 200


def test_a_rotated_key_has_two_secrets_for_the_grace_time(guarded: Locked) -> None:
    def works(key: str) -> bool:
        response = guarded.service.client.get("/v1/studies", headers={"Authorization": f"Bearer {key}"})
        assert response.status_code in (200, 401)
        return response.status_code == 200

    def rotate(**body: Any) -> str:
        response = guarded.call("POST", f"/v1/keys/{reader.id}:rotate", guarded.root, json=body)
        assert response.status_code == 200, response.text
        assert (response.json()["id"], response.json()["prefix"]) == (reader.id, reader.text[:20])
        key: str = response.json()["key"]
        return key

    reader = guarded.by_scope[Scope.READ]
    second = rotate(grace_seconds=3600)
    assert works(reader.text)
    assert works(second)
    third = rotate()
    assert [works(key) for key in (reader.text, second, third)] == [False, False, True]
    fourth = rotate(grace_seconds=60)
    with guarded.service.database.write() as session:
        session.execute(text("UPDATE fettle_keys SET old_expires_at = 1.0 WHERE old_expires_at IS NOT NULL"))
    guarded.service.app.state.service.keyring.forget(reader.id)
    assert [works(key) for key in (third, fourth)] == [False, True]
    guarded.call("DELETE", f"/v1/keys/{reader.id}", guarded.root)
    refused = guarded.call("POST", f"/v1/keys/{reader.id}:rotate", guarded.root)
    assert (refused.status_code, refused.json()["code"]) == (409, "STATE_CONFLICT")


def test_a_key_ends_while_it_is_remembered(guarded: Locked) -> None:
    made = make_key(guarded.service, "short", [Scope.READ], expires_in_s=2.0)
    assert guarded.call("GET", "/v1/studies", made).status_code == 200
    began = time.monotonic()
    wait_for(lambda: guarded.call("GET", "/v1/studies", made).status_code == 401, 20, "the key's end")
    assert time.monotonic() - began < 4.5  # not only once it is looked up again


def test_when_a_key_was_last_used_is_noted_beside_the_requests(guarded: Locked) -> None:
    reader = guarded.by_scope[Scope.READ]
    guarded.call("GET", "/v1/studies", reader)
    assert guarded.call("GET", f"/v1/keys/{reader.id}", guarded.root).json()["last_used_at"] is None
    of_service = guarded.service.app.state.service.keyring
    assert of_service.write_used(guarded.service.database) == 2
    first = guarded.call("GET", f"/v1/keys/{reader.id}", guarded.root).json()["last_used_at"]
    guarded.call("GET", "/v1/studies", reader)
    of_service.write_used(guarded.service.database)
    assert guarded.call("GET", f"/v1/keys/{reader.id}", guarded.root).json()["last_used_at"] > first > "2020"
    with guarded.service.database.write() as session:
        keys.note_used(session, {reader.id: 3600.0})
    assert guarded.call("GET", f"/v1/keys/{reader.id}", guarded.root).json()["last_used_at"] > first


def test_requests_with_a_known_key_ask_the_database_for_nothing(guarded: Locked) -> None:
    from tests.store.statements import listening

    key = guarded.by_scope[Scope.READ]
    guarded.call("GET", "/v1/samplers", key)
    database = guarded.service.app.state.database
    with listening(database) as heard:
        for _ in range(20):
            assert guarded.call("GET", "/v1/samplers", key).status_code == 200
    asked = [statement for statement in heard.statements if "fettle_keys" in statement]
    assert len(asked) <= 1  # the five seconds may have passed in between


def test_secrets_are_stored_nowhere(guarded: Locked) -> None:
    once = {"Idempotency-Key": "a"}
    made = guarded.call("POST", "/v1/keys", guarded.root, json={"name": "new"}, headers=once)
    assert made.status_code == 201
    rotated = guarded.call("POST", f"/v1/keys/{made.json()['id']}:rotate", guarded.root, headers=once)
    secrets = [made.json()["key"][20:], rotated.json()["key"][20:], guarded.root.text[20:]]
    pepper = pepper_of(guarded.service.settings).find()
    assert pepper is not None
    secrets.append(pepper.decode())
    with guarded.service.database.read() as session:
        for table in Base.metadata.sorted_tables:
            for row in session.execute(table.select()):
                assert not any(secret in str(value) for value in row for secret in secrets), table.name
    shown = guarded.call("GET", "/v1/keys", guarded.root).text + guarded.call("GET", "/v1/audit", guarded.root).text
    assert not any(secret in shown for secret in secrets)


# -- admins -----------------------------------------------------------------------------------------------------------


def test_an_admin_of_one_project_stays_in_it(guarded: Locked) -> None:
    admin = guarded.by_scope[Scope.ADMIN]
    for method, path, body in (
        ("POST", "/v1/keys", {"name": "spy", "project": "elsewhere"}),
        ("GET", "/v1/keys?project=elsewhere", None),
        ("GET", "/v1/keys?project=*", None),
        ("GET", "/v1/audit?project=elsewhere", None),
        ("POST", "/v1/projects", {"name": "mine"}),
        ("PATCH", "/v1/projects/default", {"max_studies": 10**6}),
        ("PATCH", "/v1/projects/nothing", {"max_studies": 10**6}),
        ("DELETE", "/v1/projects/elsewhere", None),
    ):
        response = guarded.call(method, path, admin, json=body)
        assert (response.status_code, response.json()["code"]) == (403, "FORBIDDEN"), path
    for method, path in (
        ("GET", f"/v1/keys/{guarded.stranger.id}"),
        ("DELETE", f"/v1/keys/{guarded.stranger.id}"),
        ("POST", f"/v1/keys/{guarded.stranger.id}:rotate"),
        ("POST", f"/v1/keys/{guarded.root.id}:rotate"),
        ("DELETE", f"/v1/keys/{guarded.root.id}"),
        ("GET", f"/v1/keys/{guarded.root.id}"),
        ("GET", "/v1/projects/elsewhere"),
    ):
        assert guarded.call(method, path, admin).status_code == 404, path
    assert [p["name"] for p in guarded.call("GET", "/v1/projects", admin).json()["items"]] == ["default"]
    listed = {key["id"] for key in guarded.call("GET", "/v1/keys", admin).json()["items"]}
    assert listed == {key.id for key in guarded.by_scope.values()}


def test_no_key_of_all_projects_is_made_over_http(guarded: Locked) -> None:
    body = {"name": "power", "scopes": ["admin"], "all_projects": True}
    assert guarded.call("POST", "/v1/keys", guarded.root, json=body).status_code == 422
    made = guarded.call("POST", "/v1/keys", guarded.root, json={"name": "power", "scopes": ["admin"]}).json()
    assert made["all_projects"] is False


def test_projects_come_with_quotas_and_go_when_nothing_is_left(guarded: Locked) -> None:
    body = {"name": "vision", "description": "images", "max_studies": 1}
    made = guarded.call("POST", "/v1/projects", guarded.root, json=body)
    assert (made.status_code, made.headers["location"]) == (201, "/v1/projects/vision")
    assert guarded.call("POST", "/v1/projects", guarded.root, json=body).json()["code"] == "NAME_TAKEN"
    key = guarded.call(
        "POST", "/v1/keys", guarded.root, json={"name": "v", "scopes": ["read", "submit"], "project": "vision"}
    )
    headers = {"Authorization": f"Bearer {key.json()['key']}"}
    client = guarded.service.client
    study = client.post("/v1/studies", json=function_study(), headers=headers).json()
    full = client.post("/v1/studies", json=function_study(name="second"), headers=headers)
    assert (full.status_code, full.json()["code"]) == (409, "QUOTA_EXCEEDED")
    assert "1 of at most 1" in full.json()["detail"]
    changed = guarded.call(
        "PATCH", "/v1/projects/vision", guarded.root, json={"max_studies": None, "max_stored_bytes": 5}
    )
    assert changed.json() == made.json() | {
        "max_studies": None,
        "max_stored_bytes": 5,
        "usage": changed.json()["usage"],
    }
    assert changed.json()["usage"] == {"studies": 1, "running_trials": 0, "stored_bytes": 0}
    assert client.post("/v1/studies", json=function_study(name="second"), headers=headers).status_code == 201
    left = guarded.call("DELETE", "/v1/projects/vision", guarded.root)
    assert (left.status_code, "2 studies, 1 keys" in left.json()["detail"]) == (409, True)
    assert guarded.call("DELETE", "/v1/projects/default", guarded.root).status_code == 409
    for found in client.get("/v1/studies", headers=headers).json()["items"]:
        client.post(f"/v1/studies/{found['id']}:cancel", headers=headers)
        assert client.delete(f"/v1/studies/{found['id']}", headers=headers).status_code == 204
    assert client.get(f"/v1/studies/{study['id']}", headers=headers).status_code == 404
    guarded.call("DELETE", f"/v1/keys/{key.json()['id']}", guarded.root)
    assert guarded.call("DELETE", "/v1/projects/vision", guarded.root).status_code == 204
    assert guarded.call("GET", "/v1/projects/vision", guarded.root).status_code == 404
    assert guarded.call("POST", "/v1/keys", guarded.root, json={"name": "w", "project": "vision"}).status_code == 404


def test_lists_of_keys_and_changes_have_pages(guarded: Locked) -> None:
    for path in ("/v1/keys?project=*", "/v1/audit?project=*"):
        whole = guarded.call("GET", path, guarded.root).json()["items"]
        pages, cursor = [], ""
        while cursor is not None:
            answer = guarded.call("GET", f"{path}&limit=2{cursor and f'&cursor={cursor}'}", guarded.root).json()
            pages += answer["items"]
            cursor = answer["next_cursor"]
        assert pages == whole
    wrong = guarded.call("GET", "/v1/audit?cursor=x", guarded.root)
    assert (wrong.status_code, wrong.json()["code"]) == (400, "BAD_CURSOR")


def test_nothing_is_made_in_a_project_that_was_deleted(guarded: Locked) -> None:
    """A key may be remembered for some seconds after it was revoked and its project deleted elsewhere."""
    make_project(guarded.service, "gone")
    key = make_key(guarded.service, "late", list(Scope), project="gone")
    assert guarded.call("GET", "/v1/studies", key).status_code == 200
    with guarded.service.database.write() as session:
        keys.revoke_key(session, None, key.id)
        projects.delete_project(session, "gone")
    csv = {"file": ("a.csv", b"x,y\n" + b"1,a\n2,b\n" * 50), "name": (None, "mine"), "target": (None, "y")}
    for path, request in (("/v1/studies", {"json": function_study()}), ("/v1/datasets", {"files": csv})):
        refused = guarded.call("POST", path, key, **request)
        assert (refused.status_code, refused.json()["code"]) in ((404, "PROJECT_NOT_FOUND"), (401, "UNAUTHENTICATED"))


def test_a_project_of_its_own_needs_no_change_of_the_default_one(guarded: Locked) -> None:
    make_project(guarded.service, "apart", max_studies=0)
    apart = make_key(guarded.service, "apart", [Scope.SUBMIT], project="apart")
    refused = guarded.call("POST", "/v1/studies", apart, json=function_study())
    assert (refused.status_code, refused.json()["code"]) == (409, "QUOTA_EXCEEDED")
    guarded.create()
