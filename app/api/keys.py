"""API keys: made, listed, rotated, revoked. A key's text is told once, when it is made."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field, StrictFloat, StrictStr
from sqlalchemy.orm import Session

from app.api import schemas
from app.api.access import needs
from app.api.answers import answer, page
from app.api.deps import DEFAULT_LIMIT, Api, Calling, Changing, CursorText, Limit
from app.api.idempotency import once
from app.api.pagination import Cursors
from app.api.projects import NewName, ProjectName
from app.api.routing import router as make_router
from app.domain.access import Caller, Scope
from app.domain.keys import shown_prefix
from app.domain.study import Name
from app.errors import Forbidden
from app.store import keys, tables
from app.store.keys import scopes_of
from app.store.log import rfc3339

router = make_router("keys")

LONGEST_S = 10 * 365.25 * 24 * 3600.0
"""Ten years: a key that is to last longer doesn't expire."""
LONGEST_GRACE_S = 30 * 24 * 3600.0
OfProject = Annotated[
    ProjectName | None, Query(description="Another project than the key's own, for keys of all projects; `*`: all.")
]


class NewKey(BaseModel):
    """A key to make."""

    model_config = {"extra": "forbid"}

    name: Name = Field(description="What it is called in `created_by` and in the audit log.")
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(Scope))] = [Scope.READ, Scope.SUBMIT]
    expires_in_seconds: Annotated[StrictFloat, Field(gt=0, le=LONGEST_S)] | None = Field(
        default=None, description="Left out: it doesn't expire."
    )
    project: NewName | None = Field(
        default=None, description="The caller's own where left out; another one is for keys of all projects."
    )


class Rotation(BaseModel):
    """How a key is rotated."""

    model_config = {"extra": "forbid"}

    grace_seconds: Annotated[StrictFloat, Field(ge=0, le=LONGEST_GRACE_S)] = Field(
        default=0.0, description="How long the secret before stays good."
    )


class Key(BaseModel):
    """A key, without its secret."""

    id: StrictStr
    name: str
    project: str
    all_projects: bool = Field(description="An admin of all projects; only a command on the database makes them.")
    scopes: list[Scope]
    prefix: str = Field(description="How its text begins.")
    created_by: str | None
    created_at: schemas.Time
    expires_at: schemas.Time | None
    rotated_until: schemas.Time | None = Field(description="Until when the secret before the last rotation is good.")
    revoked_at: schemas.Time | None
    last_used_at: schemas.Time | None = Field(description="To a minute or two.")


class MadeKey(Key):
    """A key with its text, which nobody can tell again."""

    key: str


class KeyPage(BaseModel):
    """Keys, the oldest first."""

    items: list[Key]
    next_cursor: str | None


@router.get("/v1/keys", response_model=KeyPage)
@needs(Scope.ADMIN)
def list_keys(
    api: Api, caller: Calling, project: OfProject = None, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> Response:
    """The project's keys, revoked and expired ones too."""
    of = one_or_all(caller, project)
    cursors = Cursors(["keys", caller.project, of], [int])
    (after,) = cursors.decode(cursor) or (0,)
    with api.database.read() as session:
        found = keys.list_keys(session, reach_of(caller), project=of, after=after, limit=limit + 1)
    more = cursors.encode((found[limit - 1].id,)) if len(found) > limit else None
    return page([key_view(row) for row in found[:limit]], more)


@router.post("/v1/keys", status_code=201, response_model=MadeKey)
@needs(Scope.ADMIN, change="key.create")
def create_key(new: NewKey, request: Request, api: Api, caller: Calling, change: Changing) -> Response:
    """Make a key. Its text is in this answer alone; `Idempotency-Key` is not heeded, since answers to it are kept."""
    if caller.key_id is None:
        raise Forbidden(
            "Expected the first key to be made where the database is, with `fettle keys create NAME --scope admin`. "
            "Received a request to a service that is open: whoever made it would lock all others out."
        )
    project = own_or_any(caller, new.project)
    wanted = keys.NewKey(new.name, project, new.scopes, expires_in_s=new.expires_in_seconds, created_by=caller.name)

    pepper, text = api.keyring.pepper(), ""

    def work(session: Session) -> Response:
        nonlocal text
        row, text = keys.create_key(session, wanted, pepper)
        change.note(session, row.public_id, project=project, scopes=row.scopes.split())
        return answer(key_view(row), 201, location=f"/v1/keys/{row.public_id}")

    response = once(api, caller.project, request, None, work)
    return _with_text(response, text)


@router.get("/v1/keys/{key_id:id}", response_model=Key)
@needs(Scope.ADMIN)
def get_key(key_id: str, api: Api, caller: Calling) -> Response:
    """One key."""
    with api.database.read() as session:
        return answer(key_view(keys.find_key(session, reach_of(caller), key_id)))


@router.post("/v1/keys/{key_id:id}:rotate", response_model=MadeKey)
@needs(Scope.ADMIN, change="key.rotate")
def rotate_key(
    key_id: str, request: Request, api: Api, caller: Calling, change: Changing, rotation: Rotation | None = None
) -> Response:
    """Give a key another secret; the one before stays good for a grace time."""
    grace_s, pepper, text = (rotation or Rotation()).grace_seconds, api.keyring.pepper(), ""

    def work(session: Session) -> Response:
        nonlocal text
        row, text = keys.rotate_key(session, reach_of(caller), key_id, grace_s, pepper)
        change.note(session, row.public_id, project=row.project, grace_seconds=grace_s)
        return answer(key_view(row))

    response = once(api, caller.project, request, None, work)
    api.keyring.forget(key_id)
    return _with_text(response, text)


def _with_text(response: Response, text: str) -> Response:
    """The answer that is recorded, which has no secret, with the key's text: that of the last try, which happened."""
    made = MadeKey(**Key.model_validate_json(bytes(response.body)).model_dump(), key=text)
    return answer(made, response.status_code, location=response.headers.get("Location"))


@router.delete("/v1/keys/{key_id:id}", status_code=204, response_class=Response)
@needs(Scope.ADMIN, change="key.revoke")
def revoke_key(key_id: str, api: Api, caller: Calling, change: Changing) -> Response:
    """Revoke a key: refused from now on, within five seconds by other API processes. It stays in the list."""

    def work(session: Session) -> None:
        row = keys.revoke_key(session, reach_of(caller), key_id)
        change.note(session, row.public_id, project=row.project)

    api.database.run(work)
    api.keyring.forget(key_id)
    return Response(status_code=204)


def reach_of(caller: Caller) -> str | None:
    """The project whose keys a caller may manage; None: all of them."""
    return None if caller.manages_projects else caller.project


def own_or_any(caller: Caller, project: str | None) -> str:
    """The project that a caller names, or their own.

    Raises:
        Forbidden: it is another one, and their key is of one project.
    """
    if project is None or project == caller.project:
        return caller.project
    if not caller.manages_projects:
        raise Forbidden(f"Expected a key of all projects, or the project {caller.project!r}. Received: {project!r}")
    return project


def one_or_all(caller: Caller, project: str | None) -> str | None:
    """The same for lists; `*` is all projects, None."""
    return None if project == "*" and caller.manages_projects else own_or_any(caller, project)


def key_view(row: tables.ApiKey) -> Key:
    """A key as it is shown."""
    return Key(**_fields(row))


def made_view(row: tables.ApiKey, text: str) -> MadeKey:
    """A key with its text."""
    return MadeKey(**_fields(row), key=text)


def _fields(row: tables.ApiKey) -> dict[str, Any]:
    def time(at: float | None) -> str | None:
        return None if at is None else rfc3339(at)

    return {
        "id": row.public_id,
        "name": row.name,
        "project": row.project,
        "all_projects": row.all_projects,
        "scopes": sorted(scopes_of(row)),
        "prefix": shown_prefix(row.public_id),
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
        "expires_at": time(row.expires_at),
        "rotated_until": time(row.old_expires_at),
        "revoked_at": time(row.revoked_at),
        "last_used_at": time(row.last_used_at),
    }
