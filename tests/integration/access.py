"""Keys for tests of who may do what, and requests of every route."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from app.api.access import declared
from app.api.exposure import pepper_of
from app.domain.access import Scope
from app.domain.keys import ALPHABET, new_key
from app.store import keys, projects
from app.store.keys import NewKey
from tests.integration.conftest import RunningService, function_study


@dataclass(frozen=True)
class Made:
    """A key that was made: its id and its text."""

    id: str
    text: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.text}"}


def make_key(service: RunningService, name: str, scopes: Sequence[Scope], **changes: Any) -> Made:
    """A key made on the database, as `fettle keys create` does."""
    new = NewKey(**({"name": name, "project": "default", "scopes": scopes} | changes))
    pepper = pepper_of(service.settings).ensure()
    with service.database.write() as session:
        row, text = keys.create_key(session, new, pepper)
    service.app.state.service.keyring._asked_at = float("-inf")
    return Made(row.public_id, text)


def make_project(service: RunningService, name: str, **quotas: int) -> None:
    with service.database.write() as session:
        projects.create_project(session, name, "", projects.Quotas(**quotas), created_by=None)


@dataclass(frozen=True)
class Locked:
    """A service with keys: one of each scope, an admin of all projects, and one of another project."""

    service: RunningService
    by_scope: dict[Scope, Made]
    root: Made
    stranger: Made

    def call(self, method: str, path: str, key: Made | None, **request: Any) -> httpx.Response:
        headers = {**(key.headers if key else {}), **request.pop("headers", {})}
        return self.service.client.request(method, path, headers=headers, **request)

    def create(self, key: Made | None = None, **changes: Any) -> dict[str, Any]:
        made = self.call("POST", "/v1/studies", key or self.root, json=function_study(**changes))
        assert made.status_code == 201, made.text
        study: dict[str, Any] = made.json()
        return study


def locked(service: RunningService) -> Locked:
    by_scope = {scope: make_key(service, f"only-{scope}", [scope]) for scope in Scope}
    root = make_key(service, "root", [Scope.ADMIN], all_projects=True)
    make_project(service, "elsewhere")
    return Locked(service, by_scope, root, make_key(service, "stranger", list(Scope), project="elsewhere"))


def bad_headers(service: RunningService) -> dict[str, dict[str, Any]]:
    """Headers of requests from nobody, by what is wrong with them."""
    good = make_key(service, "good", list(Scope))
    revoked = make_key(service, "revoked", list(Scope))
    expired = make_key(service, "expired", list(Scope), expires_in_s=-1.0)
    with service.database.write() as session:
        keys.revoke_key(session, None, revoked.id)
    last = good.text[-1]
    mistyped = good.text[:-1] + ALPHABET[(ALPHABET.index(last) + 1) % len(ALPHABET)]
    other = new_key(good.id).text
    return {
        "none": {},
        "empty": {"Authorization": ""},
        "no scheme": {"Authorization": good.text},
        "another scheme": {"Authorization": f"Basic {good.text}"},
        "garbage": {"Authorization": "Bearer garbage"},
        "not ascii": {"Authorization": b"Bearer \xe9"},
        "mistyped": {"Authorization": f"Bearer {mistyped}"},
        "unknown": {"Authorization": f"Bearer {new_key().text}"},
        "another secret of a key": {"Authorization": f"Bearer {other}"},
        "revoked": revoked.headers,
        "expired": expired.headers,
        "two keys": {"Authorization": f"Bearer {good.text}, Bearer {good.text}"},
    }


@dataclass(frozen=True)
class Route:
    """A route with its parameters filled in so that it names nothing."""

    method: str
    path: str
    template: str
    scope: Scope | None
    change: str | None


NOWHERE = {"study_id": "st_nowhere", "number": "0", "name": "nothing", "kind": "history", "key_id": "key_nowhere"}
NOWHERE |= {"dataset_id": "ds_nowhere", "worker_id": "nobody", "webhook_id": "wh_nowhere"}


def routes_of(service: RunningService, **parameters: str) -> Iterator[Route]:
    """Every route of the service; parameters lead nowhere unless they are given."""
    known = NOWHERE | parameters

    def value(found: re.Match[str]) -> str:
        return known.get(found[1], "nothing")

    for (template, method), access in sorted(declared(service.app.routes).items()):
        path = re.sub(r"{(\w+)(?::\w+)?}", value, template)
        if path.endswith("/events"):
            path += "?follow=false"
        yield Route(method, path, template, access.scope, access.change)
