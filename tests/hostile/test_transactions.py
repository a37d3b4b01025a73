"""Nothing is computed inside a write transaction, which holds SQLite's lock, nor on the loop that serves all calls."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request
from fastapi.responses import PlainTextResponse
from fastapi.routing import iter_route_contexts

from app.domain.access import Scope
from app.domain.registry import BUILT_IN
from app.store.engine import Database
from app.store.workers import Offer, register_worker
from tests.hostile.computing import LARGE, watching_loop, watching_writes
from tests.integration.access import make_key
from tests.integration.conftest import RunningService, serving
from tests.support.data_files import csv_table, form

SAFE = {"GET", "HEAD"}
ASYNC = {
    "POST /v1/studies", "POST /v1/studies:validate", "PATCH /v1/studies/{study_id:id}",
    "POST /v1/studies/{study_id:id}/trials:ask", "POST /v1/datasets",
    "GET /v1/studies/{study_id:id}/best", "GET /v1/studies/{study_id:id}/importances",
    "GET /v1/studies/{study_id:id}/plots/{kind:id}",
    "GET /v1/studies/{study_id:id}/report", "GET /v1/studies/{study_id:id}/events", "GET /v1/events", "GET /healthz",
    "GET /openapi.json", "HEAD /openapi.json", "GET /docs",
}  # fmt: skip
"""Endpoints that run on the event loop: they wait for turns, threads and streams, and compute nothing themselves."""


@pytest.fixture
def running(sqlite_database: Database, tmp_path: Path) -> Iterator[RunningService]:
    with serving(sqlite_database, tmp_path, webhook_allowed_networks="127.0.0.0/8") as service:
        yield service


def large(name: str, **changes: Any) -> dict[str, Any]:
    """A definition of 250 kB for outside programs, with conditions, that is cheap to run."""
    searched = {f"x{i}": {"type": "float", "low": 0.0, "high": 1.0, "when": {"kind": ["a"]}} for i in range(50)}
    definition = {
        "name": name,
        "model": {"family": "external"},
        "hyperparameters": {
            "kind": {"type": "categorical", "choices": ["a", "b"]},
            **searched,
            **{f"fixed{i}": "f" * 250 for i in range(900)},
        },
        "objectives": [{"metric": "loss"}],
        "budget": {"trials": 100},
        "training": {"early_stopping": {"metric": "loss", "patience": 3}},
    }
    return definition | changes


class Session:
    """A client that makes every kind of change, in an order in which each is possible."""

    def __init__(self, service: RunningService, note: Callable[[str], None]) -> None:
        self._service = service
        self._note = note
        self._headers: dict[str, str] = {}
        self._study = self._trial = ""

    def send(self, operation: str, path: str, body: Any = None, **given: Any) -> Any:
        """Make a call of an operation, which must go well; its answer."""
        self._note(operation)
        method = operation.split(" ", maxsplit=1)[0]
        headers = self._headers | given.pop("headers", {})
        answer = self._service.client.request(method, path, json=body, headers=headers, **given)
        assert answer.is_success, (operation, answer.text[:500])
        is_json = answer.headers.get("content-type") == "application/json"
        return answer.json() if is_json else answer

    def make_every_change(self) -> None:
        self._studies()
        self._outside()
        self._others()
        self._keys()  # last: from then on calls need one

    def _studies(self) -> None:
        study = "/v1/studies/{study_id}"
        self.send("POST /v1/studies:validate", "/v1/studies:validate", large("tried"))
        self._study = "/v1/studies/" + self.send("POST /v1/studies", "/v1/studies", large("made"))["id"]
        self.send(f"PATCH {study}", self._study, {"description": "d"})
        self.send(f"POST {study}/trials", f"{self._study}/trials", {"hyperparameters": {"kind": "b"}})
        self.send(f"POST {study}/trials/{{number}}:cancel", f"{self._study}/trials/0:cancel")
        self.send("POST /v1/studies", "/v1/studies", large("warm", warm_start={"studies": ["made"]}))
        for action in ("pause", "resume"):
            self.send(f"POST {study}:{action}", f"{self._study}:{action}")

    def _outside(self) -> None:
        trials = "/v1/studies/{study_id}/trials"
        asked = self.send(f"POST {trials}:ask", f"{self._study}/trials:ask", {"count": 2})["items"]
        for trial in asked:
            path, token = f"{self._study}/trials/{trial['number']}", {"lease_token": trial["lease"]["token"]}
            one = f"POST {trials}/{{number}}"
            self.send(f"{one}:heartbeat", f"{path}:heartbeat", token)
            self.send(f"{one}:report", f"{path}:report", token | {"epoch": 0, "metrics": {"loss": 1.0}})
            self.send(f"{one}:tell", f"{path}:tell", token | {"state": "COMPLETE", "values": {"loss": 1.0}})
        other = "/v1/studies/" + self.send("POST /v1/studies", "/v1/studies", large("stopped"))["id"]
        self.send("POST /v1/studies/{study_id}:stop", f"{other}:stop")
        self.send("POST /v1/studies/{study_id}:cancel", f"{self._study}:cancel")
        self.send("DELETE /v1/studies/{study_id}", self._study)

    def _others(self) -> None:
        body, headers = form(csv_table(), "a.csv", [("name", "table"), ("target", "churned")])
        made = self.send("POST /v1/datasets", "/v1/datasets", content=body, headers=headers)
        self.send("DELETE /v1/datasets/{dataset_id}", f"/v1/datasets/{made['id']}")
        with self._service.database.write() as session:
            register_worker(session, "w1", "here", 1, Offer("cpu", ["function"], {}))
        self.send("POST /v1/workers/{worker_id}:drain", "/v1/workers/w1:drain")
        hook = self.send("POST /v1/webhooks", "/v1/webhooks", {"url": "http://127.0.0.1:9/nobody-listens"})["id"]
        for action in ("pause", "resume", "test"):
            self.send(f"POST /v1/webhooks/{{webhook_id}}:{action}", f"/v1/webhooks/{hook}:{action}")
        self.send("DELETE /v1/webhooks/{webhook_id}", f"/v1/webhooks/{hook}")
        self.send("POST /v1/projects", "/v1/projects", {"name": "vision"})
        self.send("PATCH /v1/projects/{name}", "/v1/projects/vision", {"max_studies": 3})
        self.send("DELETE /v1/projects/{name}", "/v1/projects/vision")

    def _keys(self) -> None:
        self._headers = make_key(self._service, "root", [Scope.ADMIN], all_projects=True).headers
        other = self.send("POST /v1/keys", "/v1/keys", {"name": "other", "scopes": ["read"]})["id"]
        self.send("POST /v1/keys/{key_id}:rotate", f"/v1/keys/{other}:rotate", {"grace_seconds": 5})
        self.send("DELETE /v1/keys/{key_id}", f"/v1/keys/{other}")


def test_no_change_computes_inside_its_transaction(running: RunningService) -> None:
    """Of definitions of 250 kB neither one is read or written out there, and nothing of the space is looked at."""
    assert len(str(large("x"))) > 10 * LARGE
    paths = running.client.get("/openapi.json").json()["paths"]
    changes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods} - {
        f"GET {path}" for path in paths
    }
    with watching_writes(running.app.state.database) as watch:

        def note(operation: str) -> None:
            watch.operation = operation

        Session(running, note).make_every_change()
    assert set(watch.transactions) >= changes - {"POST /v1/studies:validate", "POST /v1/webhooks/{webhook_id}:test"}
    assert not watch.found, watch.found


def test_the_watch_sees_what_computes(running: RunningService) -> None:
    """What the test above relies on: the same work is noticed where it is done inside a transaction."""
    from app.api.schemas import StudyChanges
    from app.api.validation import accepted, changed
    from app.domain.stored import read_definition
    from app.domain.study import StudyDefinition

    definition = StudyDefinition.model_validate(large("made"))
    text = definition.model_dump_json()
    with watching_writes(running.app.state.database) as watch, running.app.state.database.write() as session:
        session.connection()
        accepted(definition, running.settings, families=BUILT_IN)
        assert any("checks.space" in found or "check_hyperparameters" in found for found in watch.found.pop(""))
        changed(definition, StudyChanges(description="d"), running.settings, families=BUILT_IN)
        assert "StudyDefinition.model_dump_json" in watch.found.pop("")
        read_definition(text)
        assert "StudyDefinition.model_validate_json" in watch.found.pop("")


def test_only_declared_endpoints_run_on_the_event_loop(running: RunningService) -> None:
    found = {
        f"{method} {route.path}"
        for route in iter_route_contexts(running.app.routes)
        if inspect.iscoroutinefunction(route.endpoint)
        for method in route.methods or ()
    }
    assert found == ASYNC


def test_the_event_loop_looks_at_no_large_definition(running: RunningService) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def tell(_: Request) -> PlainTextResponse:
        loops.append(asyncio.get_running_loop())
        return PlainTextResponse("")

    running.app.router.add_route("/loop", tell)
    assert running.client.get("/loop").status_code == 200
    with watching_loop(loops[0]) as watch:

        def note(operation: str) -> None:
            watch.operation = operation

        session = Session(running, note)
        session.make_every_change()
        wrong = large("wrong")
        wrong["hyperparameters"] |= {f"bad{i}": {"type": "float", "low": 1.0, "high": 0.0} for i in range(500)}
        note("a definition that is refused")
        refused: httpx.Response = running.client.post("/v1/studies:validate", json=wrong, headers=session._headers)
        assert refused.status_code == 422
    assert not watch.found, watch.found
