"""Who may do what: every route is asked by nobody, by keys of each scope, and by keys of another project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.api import keyring
from app.api.access import UndeclaredAccess, declared, install, needs, public
from app.api.exposure import OpenToStrangers, check_exposure, pepper_of
from app.api.routing import router
from app.domain.access import Scope
from app.settings import Settings
from app.store import keys
from app.store.engine import Database
from app.store.workers import Offer, register_worker
from tests.integration.access import Locked, Route, bad_headers, locked, routes_of
from tests.integration.conftest import RunningService, function_study, serving
from tests.support.processes import wait_for


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


def test_shared_workers_are_drained_with_a_key_of_all_projects_alone(guarded: Locked) -> None:
    with guarded.service.database.write() as session:
        register_worker(session, "w1", "here", 1, Offer("cpu", ["function"], {}))
    for key in (guarded.by_scope[Scope.ADMIN], guarded.stranger):
        refused = guarded.call("POST", "/v1/workers/w1:drain", key)
        assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
        assert "Expected a key of all projects" in refused.json()["detail"]
        made_up = guarded.call("POST", "/v1/workers/none:drain", key)
        assert made_up.json()["detail"] == refused.json()["detail"]
    (seen,) = guarded.call("GET", "/v1/workers", guarded.root).json()["items"]
    assert seen["drain_requested"] is False
    drained = guarded.call("POST", "/v1/workers/w1:drain", guarded.root)
    assert (drained.status_code, drained.json()["drain_requested"]) == (200, True)


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
