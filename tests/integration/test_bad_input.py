"""Whatever is sent is answered with a problem that names the place, and changes nothing."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from app.domain.families import FAMILIES
from app.store.engine import Database
from app.store.tables import Event, IdempotencyKey, Study, Trial
from tests.integration import bad_input
from tests.integration.bad_input import DefinitionCase, RequestCase
from tests.integration.bad_input.studies import flt, mlp, searched

CASES = [importlib.import_module(f"{bad_input.__name__}.{m.name}") for m in pkgutil.iter_modules(bad_input.__path__)]
DEFINITIONS: list[DefinitionCase] = [case for module in CASES for case in getattr(module, "DEFINITIONS", [])]
REQUESTS: list[RequestCase] = [case for module in CASES for case in getattr(module, "REQUESTS", [])]


class Site:
    """A service with one running and one finished study, and the count of all that is stored."""

    def __init__(self, running: Any) -> None:
        self.client = running.client
        self.database: Database = running.database
        outside = {"model": {"family": "external"}, "objectives": [{"metric": "loss"}]}
        self.ids = {
            "id": running.create(name="present")["id"],
            "over": running.create(name="over")["id"],
            "outside": running.create(name="outside", **outside)["id"],
        }
        assert self.client.post(f"/v1/studies/{self.ids['id']}/trials", json={}).status_code == 201
        assert self.client.post(f"/v1/studies/{self.ids['over']}:cancel").status_code == 200

    def counts(self) -> list[int | None]:
        with self.database.read() as session:
            tables = (Study, Trial, Event, IdempotencyKey)
            return [session.scalar(select(func.count()).select_from(table)) for table in tables]

    def send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        for name, public_id in self.ids.items():
            path = path.replace(f"{{{name}}}", public_id)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        return self.client.request(method, path, content=body, headers=kind | headers)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, serve_module: Any) -> Iterator[Site]:
    """One service for all cases: none of them may change anything."""
    folder: Path = tmp_path_factory.mktemp("site")
    with serve_module(request.param, folder) as running:
        yield Site(running)


def _expect(site: Site, response: Any, status: int, code: str, loc: list[Any] | None, before: list[int | None]) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) >= {"type", "title", "status", "detail", "code", "errors"}
    assert (problem["code"], problem["status"]) == (code, status)
    assert problem["detail"]
    if loc is not None:
        assert loc in [error["loc"] for error in problem["errors"]], problem["errors"]
    for error in problem["errors"]:
        assert error["msg"]
        assert not any("union" in str(part) or "function-after" in str(part) for part in error["loc"])
    assert site.counts() == before


@pytest.mark.parametrize(("what", "definition", "loc"), DEFINITIONS, ids=[case[0] for case in DEFINITIONS])
def test_a_definition_that_cannot_be_run_is_refused_at_its_place(
    site: Site, what: str, definition: Any, loc: list[Any]
) -> None:
    before = site.counts()
    response = site.send("POST", "/v1/studies", definition, {})
    _expect(site, response, 422, "INVALID_STUDY", loc, before)


@pytest.mark.parametrize(
    ("what", "method", "path", "body", "headers", "status", "code", "loc"), REQUESTS, ids=[case[0] for case in REQUESTS]
)
def test_a_bad_request_is_answered_with_a_problem(
    site: Site,
    what: str,
    method: str,
    path: str,
    body: Any,
    headers: dict[str, str],
    status: int,
    code: str,
    loc: list[Any] | None,
) -> None:
    before = site.counts()
    _expect(site, site.send(method, path, body, headers), status, code, loc, before)


def test_all_problems_of_a_definition_come_at_once(site: Site) -> None:
    definition = mlp(
        hyperparameters={"depth": 1, "l1": flt(-1.0, 1.0)},
        objectives=[{"metric": "f1"}],
        budget={},
        sampler={"name": "magic"},
    )
    problem = site.send("POST", "/v1/studies", definition, {}).json()
    places = [error["loc"] for error in problem["errors"]]
    for expected in (["hyperparameters", "depth"], ["hyperparameters", "l1", "low"], ["objectives", 0, "metric"]):
        assert expected in places
    assert ["budget"] in places
    assert ["sampler", "name"] in places


def test_a_body_without_a_length_is_counted_while_it_arrives(site: Site) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(2_000):
            yield b" " * 1024

    before = site.counts()
    response = site.client.post("/v1/studies", content=endless(), headers={"Content-Type": "application/json"})
    _expect(site, response, 413, "BODY_TOO_LARGE", None, before)


def test_a_refused_method_tells_those_that_are_allowed(site: Site) -> None:
    response = site.send("PUT", "/v1/studies/{id}", {}, {})
    assert response.headers["allow"] == "GET, PATCH, DELETE"


def test_messages_say_what_was_expected_and_what_came(site: Site) -> None:
    problem = site.send("POST", "/v1/studies", mlp(model={"family": "resnet"}), {}).json()
    assert problem["errors"] == [
        {"loc": ["model", "family"], "msg": f"Expected one of {', '.join(sorted(FAMILIES))}. Received: 'resnet'"}
    ]
    problem = site.send("POST", "/v1/studies", searched(l1=flt(low="x")), {}).json()
    assert problem["errors"] == [
        {"loc": ["hyperparameters", "l1", "low"], "msg": 'Expected a valid number. Received: "x"'}
    ]
