"""The audit log: who changed what, and when."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import BaseModel, Field

from app.api import schemas
from app.api.access import needs
from app.api.answers import page
from app.api.deps import DEFAULT_LIMIT, Api, Calling, CursorText, Limit
from app.api.keys import OfProject, one_or_all
from app.api.pagination import Cursors
from app.api.routing import router as make_router
from app.domain.access import Scope
from app.domain.json import loads
from app.store import audit, tables
from app.store.audit import AuditFilter
from app.store.log import rfc3339

router = make_router("audit")

ByAction = Annotated[str | None, Query(max_length=64, description="Such as `study.create` or `key.revoke`.")]
BySubject = Annotated[str | None, Query(max_length=255, description="The id or name of what was changed.")]
ByKey = Annotated[str | None, Query(max_length=40, alias="key", description="The id of the key that changed it.")]


class AuditEntry(BaseModel):
    """A change that somebody made."""

    id: int
    at: schemas.Time
    project: str
    action: str
    subject: str = Field(description="The id or name of what was changed.")
    key_id: str | None = Field(description="Null where the service was open, and for commands on the database.")
    actor: str | None = Field(description="The key's name; `local` for commands on the database.")
    request_id: str | None
    address: str | None = Field(description="Where the request came from, as far as the service can see.")
    details: dict[str, Any]


class AuditPage(BaseModel):
    """Changes, the newest first."""

    items: list[AuditEntry]
    next_cursor: str | None


@router.get("/v1/audit", response_model=AuditPage)
@needs(Scope.ADMIN)
def list_audit(
    api: Api,
    caller: Calling,
    action: ByAction = None,
    subject: BySubject = None,
    key: ByKey = None,
    project: OfProject = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response:
    """The changes in the project, the newest first."""
    of = one_or_all(caller, project)
    cursors = Cursors(["audit", of, action, subject, key], [int])
    (before,) = cursors.decode(cursor) or (None,)
    with api.database.read() as session:
        narrowed = AuditFilter(action, subject, key)
        found = audit.list_entries(session, of, narrowed, before=before, limit=limit + 1)
    more = cursors.encode((found[limit - 1].id,)) if len(found) > limit else None
    return page([audit_view(row) for row in found[:limit]], more)


def audit_view(row: tables.AuditEntry) -> AuditEntry:
    """An entry as it is shown."""
    return AuditEntry(
        id=row.id,
        at=rfc3339(row.at),
        project=row.project,
        action=row.action,
        subject=row.subject,
        key_id=row.key_id,
        actor=row.actor,
        request_id=row.request_id,
        address=row.address,
        details=loads(row.details),
    )
