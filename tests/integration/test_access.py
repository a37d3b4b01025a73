"""Who may do what: every route is asked by nobody, by keys of each scope, and by keys of another project."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from app.api import keyring
from app.api.access import UndeclaredAccess, declared, install, needs, public
from app.api.exposure import OpenToStrangers, check_exposure, pepper_of
from app.api.routing import router
from app.domain.access import Scope
from app.settings import Settings
from app.store import keys, projects
from app.store.engine import Database
from app.store.tables import Base
from tests.integration.access import Locked, Route, bad_headers, locked, make_key, make_project, routes_of
from tests.integration.conftest import RunningService, function_study, serving
from tests.processes import wait_for


@pytest.fixture
def guarded(database: Database, tmp_path: Path) -> Iterator[Locked]:
    """A service with keys, which doesn't count how often one is refused."""
    with serving(database, tmp_path, rate_failures_per_minute=0) as service:
        yield locked(service)


def told(response: httpx.Response) -> tuple[int, str, dict[str, str]]:
    """All that a client sees of an answer, but for when and under which number it was given."""
    headers = {name: value for name, value in response.headers.items() if name not in ("date", "x-request-id")}
    return response.status_code, response.text, headers


# -- who calls --------------------------------------------------------------------------------------------------------


def test_every_route_refuses_whom_it_does_not_know_and_all_of_them_alike(guarded: Locked) -> None:
    study = guarded.create()["id"]
    headers = bad_headers(guarded.service)
    answers = set()
    for route in routes_of(guarded.service, study_id=study):
        for wrong, given in headers.items():
            response = guarded.service.client.request(route.method, route.path, headers=given)
            if route.scope is None:
                assert response.status_code == 200, (route, wrong)
                continue
            status, body, seen = told(response)
            assert (status, seen["www-authenticate"]) == (401, "Bearer"), (route, wrong)
            answers.add((body, tuple(seen.items())))
    assert len(answers) == 1


def test_strangers_learn_nothing_of_paths_methods_bodies_and_sizes(guarded: Locked) -> None:
    refused = told(guarded.call("GET", "/v1/studies", None))
    for method, path, request in (
        ("GET", "/v1/nowhere", {}),
        ("GET", "/", {}),
        ("PUT", "/v1/studies", {}),
        ("OPTIONS", "/v1/studies", {}),
        ("POST", "/v1/studies", {"content": b"{broken", "headers": {"Content-Type": "application/json"}}),
        ("POST", "/v1/studies", {"content": b"x" * 2_000_000}),
        ("POST", "/v1/datasets", {"files": {"file": b"a,b\n1,2\n"}}),
        ("GET", "/v1/studies?key=" + guarded.root.text, {}),
        ("GET", "/v1/studies?access_token=" + guarded.root.text, {}),
        ("GET", "/metrics/", {}),
        ("GET", "//healthz", {}),
        ("GET", "/healthz/../v1/studies", {}),
    ):
        assert told(guarded.call(method, path, None, **request)) == refused, (method, path)
    assert guarded.call("GET", "/v1/nowhere", guarded.root).status_code == 404
    assert guarded.call("PUT", "/v1/studies", guarded.root).status_code == 405
    assert guarded.call("GET", f"/v1/studies?key={guarded.root.text}", guarded.root).status_code == 422


def test_what_is_public_is_that_and_no_more(guarded: Locked) -> None:
    open_routes = {(r.method, r.path) for r in routes_of(guarded.service) if r.scope is None}
    pages = {("GET", "/docs"), ("GET", "/openapi.json"), ("HEAD", "/openapi.json")}
    assert open_routes == {("GET", "/healthz"), ("GET", "/readyz")} | pages


def test_metrics_need_a_key_unless_the_operator_says_otherwise(database: Database, tmp_path: Path) -> None:
    with serving(database, tmp_path, metrics_open=True) as service:
        guarded = locked(service)
        assert guarded.call("GET", "/v1/studies", None).status_code == 401
        answer = guarded.call("GET", "/metrics", None)
        assert (answer.status_code, "fettle_studies" in answer.text) == (200, True)


# -- what they may do -------------------------------------------------------------------------------------------------


def test_every_route_asks_for_its_scope_before_it_looks_at_anything_else(guarded: Locked) -> None:
    study = guarded.create()["id"]
    wrong = {"params": {"unheard": "of"}, "content": b"{broken", "headers": {"Content-Type": "application/json"}}
    seen = set()
    for route in routes_of(guarded.service, study_id=study):
        for scope, key in guarded.by_scope.items():
            if route.scope is None or scope in (route.scope, Scope.ADMIN):
                continue
            for request in ({}, wrong):
                response = guarded.call(route.method, route.path, key, **request)
                assert (response.status_code, response.json()["code"]) == (403, "FORBIDDEN"), (route, scope)
                seen.add(route.scope)
    assert seen == set(Scope)


def test_the_scope_that_a_route_asks_for_is_enough_for_it(guarded: Locked) -> None:
    for route in routes_of(guarded.service):
        if route.scope is None:
            continue
        key = guarded.root if route.scope is Scope.ADMIN else guarded.by_scope[route.scope]
        for holder in (key, guarded.root):
            assert guarded.call(route.method, route.path, holder).status_code not in (401, 403, 500), route


def test_what_another_project_has_is_told_as_what_does_not_exist(guarded: Locked) -> None:
    study = guarded.create()["id"]
    guarded.call("POST", f"/v1/studies/{study}/trials", guarded.root, json={"hyperparameters": {"x0": 1.0}})
    csv = {"file": ("a.csv", b"x,y\n" + b"1,a\n2,b\n" * 50), "name": (None, "mine"), "target": (None, "y")}
    dataset = guarded.call("POST", "/v1/datasets", guarded.root, files=csv)
    assert dataset.status_code == 201, dataset.text
    there = {"study_id": study, "dataset_id": dataset.json()["id"], "key_id": guarded.root.id, "name": "default"}
    nowhere = {name: "x" * len(value) for name, value in there.items()}
    bodies = {":heartbeat": {"lease_token": "t"}, ":report": {"lease_token": "t", "epoch": 0, "metrics": {"value": 1}}}
    bodies |= {":tell": {"lease_token": "t", "state": "PRUNED"}, "/trials": {"hyperparameters": {}}}
    compared = 0
    for real, made_up in zip(routes_of(guarded.service, **there), routes_of(guarded.service, **nowhere), strict=True):
        if real.path == made_up.path:
            continue
        body = next((b for end, b in bodies.items() if real.method == "POST" and real.path.endswith(end)), None)
        body = {"description": "x"} if real.method == "PATCH" else body
        answers = []
        for route in (real, made_up):
            response = guarded.call(route.method, route.path, guarded.stranger, json=body)
            if not real.template.startswith("/v1/projects/") or real.method == "GET":
                assert response.status_code == 404, (route, response.text)
            status, text_, headers = told(response)
            for value in (*there.values(), *nowhere.values()):
                text_ = text_.replace(value, "ID")
            answers.append((status, text_, headers["content-type"]))
        assert answers[0] == answers[1], real
        compared += 1
    assert compared >= 30
    assert guarded.call("GET", "/v1/studies", guarded.stranger).json()["items"] == []
    assert guarded.call("GET", "/v1/events?follow=false", guarded.stranger).text == ""
    for path in ("/v1/audit", "/v1/keys"):
        items = guarded.call("GET", path, guarded.stranger).json()["items"]
        assert {item["project"] for item in items} <= {"elsewhere"}
    assert guarded.call("GET", f"/v1/studies/{study}", guarded.root).json()["state"] == "RUNNING"


def test_names_and_idempotency_keys_are_each_projects_own(guarded: Locked) -> None:
    once = {"Idempotency-Key": "same"}
    first = guarded.call("POST", "/v1/studies", guarded.root, json=function_study(), headers=once).json()
    second = guarded.call("POST", "/v1/studies", guarded.stranger, json=function_study(), headers=once).json()
    assert first["id"] != second["id"]
    assert [(s["project"], s["created_by"]) for s in (first, second)] == [
        ("default", "root"),
        ("elsewhere", "stranger"),
    ]
    csv = {"file": ("a.csv", b"x,y\n" + b"1,a\n2,b\n" * 50), "name": (None, "mine"), "target": (None, "y")}
    for key, name in ((guarded.root, "root"), (guarded.stranger, "stranger")):
        made = guarded.call("POST", "/v1/datasets", key, files=csv)
        assert (made.status_code, made.json()["created_by"]) == (201, name)


# -- open, and closed -------------------------------------------------------------------------------------------------


def test_an_open_service_closes_with_its_first_key_and_stays_closed(
    service: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "FRESH_S", 0.5)
    assert service.client.get("/v1/studies", headers={"Authorization": "Bearer nonsense"}).status_code == 200
    refused = service.client.post("/v1/keys", json={"name": "mine", "scopes": ["admin"]})
    assert (refused.status_code, "fettle keys create" in refused.json()["detail"]) == (403, True)
    with service.database.write() as session:
        new = keys.NewKey("first", "default", [Scope.READ])
        row, key = keys.create_key(session, new, pepper_of(service.settings).ensure())
    wait_for(lambda: service.client.get("/v1/studies").status_code == 401, 20, "a closed service")
    headers = {"Authorization": f"Bearer {key}"}
    assert service.client.get("/v1/studies", headers=headers).status_code == 200
    with service.database.write() as session:
        keys.revoke_key(session, None, row.public_id)
    wait_for(lambda: service.client.get("/v1/studies", headers=headers).status_code == 401, 20, "a revoked key")
    with serving(service.database, tmp_path) as again:
        assert again.client.get("/v1/studies").status_code == 401
        assert again.client.get("/v1/studies", headers=headers).status_code == 401


def test_an_address_that_others_reach_needs_a_key_in_force(database: Database, tmp_path: Path) -> None:
    url = database.url.render_as_string(hide_password=False)
    settings = Settings(data_dir=tmp_path, database_url=url, host="0.0.0.0")
    with pytest.raises(OpenToStrangers, match="fettle keys create"):
        check_exposure(settings)
    with database.write() as session:
        expired = keys.NewKey("old", "default", [Scope.READ], expires_in_s=-1.0)
        keys.create_key(session, expired, pepper_of(settings).ensure())
    with pytest.raises(OpenToStrangers):
        check_exposure(settings)
    with database.write() as session:
        row, _ = keys.create_key(session, keys.NewKey("a", "default", [Scope.READ]), pepper_of(settings).ensure())
    check_exposure(settings)
    other = settings.model_copy(update={"data_dir": tmp_path / "elsewhere"})
    with pytest.raises(OpenToStrangers, match="another secret"):
        check_exposure(other)
    with database.write() as session:
        keys.revoke_key(session, None, row.public_id)
    with pytest.raises(OpenToStrangers):
        check_exposure(settings)


def test_a_database_without_a_schema_has_no_keys(database_url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url=database_url, host="0.0.0.0")
    with pytest.raises(OpenToStrangers):
        check_exposure(settings)
    assert not (tmp_path / "fettle.db").exists()


def test_without_its_secret_the_service_knows_no_key(guarded: Locked, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with serving(guarded.service.database, elsewhere) as service:
        assert service.client.get("/v1/studies", headers=guarded.root.headers).status_code == 401
        assert not (elsewhere / "key-secret").exists()


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


# -- routes that say nothing ------------------------------------------------------------------------------------------


def test_a_route_that_declares_no_access_is_not_served() -> None:
    async def endpoint() -> dict[str, str]:
        return {}

    with pytest.raises(UndeclaredAccess, match="endpoint"):
        router("x").get("/v1/x")(endpoint)

    undeclared = FastAPI(docs_url=None, redoc_url=None)
    undeclared.get("/v1/plain")(endpoint)
    with pytest.raises(UndeclaredAccess, match="/v1/plain"):
        install(undeclared)

    mounted = FastAPI(docs_url=None, redoc_url=None)
    mounted.mount("/v1/mounted", FastAPI())
    with pytest.raises(UndeclaredAccess, match="/v1/mounted"):
        install(mounted)

    sockets = FastAPI(docs_url=None, redoc_url=None)
    sockets.websocket("/v1/socket")(endpoint)
    with pytest.raises(UndeclaredAccess, match="/v1/socket"):
        install(sockets)


def test_a_route_that_changes_something_names_it_and_a_public_one_takes_no_parameters() -> None:
    def app_with(method: str, path: str, declare: Any) -> FastAPI:
        async def endpoint() -> dict[str, str]:
            return {}

        part, app = router("x"), FastAPI(docs_url=None, redoc_url=None)
        getattr(part, method)(path)(declare(endpoint))
        app.include_router(part)
        return app

    with pytest.raises(UndeclaredAccess, match="change"):
        declared(app_with("post", "/v1/x", needs(Scope.SUBMIT)).routes)
    with pytest.raises(UndeclaredAccess, match="change"):
        declared(app_with("delete", "/v1/x", public).routes)
    with pytest.raises(UndeclaredAccess, match="parameters"):
        declared(app_with("get", "/v1/{x}", public).routes)
    assert declared(app_with("post", "/v1/x", needs(Scope.WORK)).routes)["/v1/x", "POST"].scope is Scope.WORK


def test_the_document_says_which_scope_each_call_needs(guarded: Locked) -> None:
    document = guarded.call("GET", "/openapi.json", None).json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    by_path = {(r.template.partition(":")[0], r.method): r for r in routes_of(guarded.service)}
    assert by_path
    operations = [(p, m, o) for p, methods in document["paths"].items() for m, o in methods.items()]
    assert all("security" in operation for _, _, operation in operations)
    wanted = sorted((r.method.lower(), str(r.scope)) for r in _documented(guarded))
    found = sorted(
        (method, str((operation["security"] or [{"key": [None]}])[0]["key"][0])) for _, method, operation in operations
    )
    assert found == wanted


def _documented(guarded: Locked) -> Iterator[Route]:
    return (r for r in routes_of(guarded.service) if not r.path.startswith(("/docs", "/redoc", "/openapi")))


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
