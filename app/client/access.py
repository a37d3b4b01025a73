"""Keys, projects and the audit log: for keys with the scope `admin`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from app.client.models import Answer
from app.client.transport import PAGE, Transport


class Key(Answer):
    """An API key, without its secret."""

    id: str
    name: str
    project: str
    all_projects: bool = False
    scopes: list[str] = []
    prefix: str = ""
    created_by: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    rotated_until: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


class MadeKey(Key):
    """A key with its text: keep it, nobody can tell it again."""

    key: str


class Usage(Answer):
    """What a project has now."""

    studies: int = 0
    running_trials: int = 0
    stored_bytes: int = 0


class Project(Answer):
    """A project, its quotas (None: as much as there is) and what it has of them."""

    name: str
    description: str = ""
    max_studies: int | None = None
    max_running_trials: int | None = None
    max_stored_bytes: int | None = None
    usage: Usage = Usage()
    created_by: str | None = None
    created_at: datetime | None = None


class AuditEntry(Answer):
    """A change that somebody made."""

    id: int
    at: datetime
    project: str
    action: str
    subject: str
    key_id: str | None = None
    actor: str | None = None
    request_id: str | None = None
    address: str | None = None
    details: dict[str, Any] = {}


class AccessCalls:
    """The calls of those who manage keys and projects."""

    _transport: Transport

    def api_keys(self, *, project: str | None = None) -> Iterator[Key]:
        """The keys of the project, or of another one (`*`: of all) for keys of all projects."""
        return self._transport.pages(Key, "/v1/keys", {"project": project, "limit": PAGE})

    def key(self, key_id: str) -> Key:
        """The key of an id."""
        return Key.model_validate_json(self._transport.call("GET", _path("keys", key_id)).content)

    def create_key(
        self,
        name: str,
        scopes: Sequence[str] = ("read", "submit"),
        *,
        expires_in_seconds: float | None = None,
        project: str | None = None,
    ) -> MadeKey:
        """A new key with its text. A lost answer is not asked for again: revoke the key and make another."""
        body = {"name": name, "scopes": list(scopes), "expires_in_seconds": expires_in_seconds, "project": project}
        given = {field: value for field, value in body.items() if value is not None}
        response = self._transport.call("POST", "/v1/keys", json=given, repeatable=False)
        return MadeKey.model_validate_json(response.content)

    def rotate_key(self, key_id: str, *, grace_seconds: float = 0.0) -> MadeKey:
        """The key with another secret; the one before stays good for `grace_seconds`."""
        path = f"{_path('keys', key_id)}:rotate"
        response = self._transport.call("POST", path, json={"grace_seconds": grace_seconds}, repeatable=False)
        return MadeKey.model_validate_json(response.content)

    def revoke_key(self, key_id: str) -> None:
        """Revoke a key: refused from now on, within five seconds everywhere."""
        self._transport.call("DELETE", _path("keys", key_id))

    def projects(self) -> Iterator[Project]:
        """All projects, for keys of all of them; else the key's own."""
        return self._transport.pages(Project, "/v1/projects", {"limit": PAGE})

    def project(self, name: str) -> Project:
        """The project of a name."""
        return Project.model_validate_json(self._transport.call("GET", _path("projects", name)).content)

    def create_project(self, name: str, description: str = "", **quotas: int | None) -> Project:
        """A new project; `quotas` are `max_studies`, `max_running_trials` and `max_stored_bytes`."""
        response = self._transport.call(
            "POST",
            "/v1/projects",
            json={"name": name, "description": description, **quotas},
            headers={"Idempotency-Key": uuid.uuid4().hex},
        )
        return Project.model_validate_json(response.content)

    def update_project(self, name: str, patch: Mapping[str, Any]) -> Project:
        """The project after a merge patch; a quota of None is taken away."""
        response = self._transport.call("PATCH", _path("projects", name), json=dict(patch))
        return Project.model_validate_json(response.content)

    def delete_project(self, name: str) -> None:
        """Delete a project that has nothing left."""
        self._transport.call("DELETE", _path("projects", name), repeatable=False)

    def audit(
        self,
        *,
        action: str | None = None,
        subject: str | None = None,
        key: str | None = None,
        project: str | None = None,
    ) -> Iterator[AuditEntry]:
        """The changes in the project, the newest first."""
        params = {"action": action, "subject": subject, "key": key, "project": project, "limit": PAGE}
        return self._transport.pages(AuditEntry, "/v1/audit", params)


def _path(kind: str, name: str) -> str:
    return f"/v1/{kind}/{quote(name, safe='')}"
