"""Projects: namespaces of studies, data sets and keys, with quotas. Keys of all projects make and change them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Request, Response
from pydantic import BaseModel, Field, StrictInt, StrictStr
from sqlalchemy.orm import Session

from app.api import schemas
from app.api.access import needs
from app.api.answers import answer, page
from app.api.deps import DEFAULT_LIMIT, Api, Calling, Changing, CursorText, IdempotencyKey, Limit
from app.api.idempotency import once
from app.api.pagination import Cursors
from app.api.routing import router as make_router
from app.domain.access import Caller, Scope
from app.errors import Forbidden
from app.store import projects, tables
from app.store.log import rfc3339
from app.store.projects import Quotas
from app.store.quotas import Usage, usage_of

router = make_router("projects")

MAX_QUOTA = 2**53
ProjectName = Annotated[StrictStr, Field(min_length=1, max_length=63, pattern=r"^([a-z0-9][a-z0-9._-]*|\*)$")]
NewName = Annotated[StrictStr, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Limited = Annotated[StrictInt, Field(ge=0, le=MAX_QUOTA)] | None
Words = Annotated[StrictStr, Field(max_length=2_000)]


class ProjectQuotas(BaseModel):
    """What a project may have at most; null: as much as there is."""

    model_config = {"extra": "forbid"}

    max_studies: Limited = Field(default=None, description="Studies, those that are over too.")
    max_running_trials: Limited = Field(default=None, description="Trials under way at once, over all its studies.")
    max_stored_bytes: Limited = Field(default=None, description="Uploads, trials' files and checkpoints.")


class NewProject(ProjectQuotas):
    """A project to make."""

    name: NewName
    description: Words = ""


class ProjectChanges(ProjectQuotas):
    """A merge patch of a project: what is left out stays, null takes a quota away."""

    description: Words = ""


class ProjectUsage(BaseModel):
    """What a project has now."""

    studies: int
    running_trials: int
    stored_bytes: int


class Project(BaseModel):
    """A project, its quotas and what it has of them."""

    name: str
    description: str
    max_studies: int | None
    max_running_trials: int | None
    max_stored_bytes: int | None
    usage: ProjectUsage
    created_by: str | None
    created_at: schemas.Time


class ProjectPage(BaseModel):
    """Projects by name."""

    items: list[Project]
    next_cursor: str | None


@router.get("/v1/projects", response_model=ProjectPage)
@needs(Scope.ADMIN)
def list_projects(api: Api, caller: Calling, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> Response:
    """All projects, for keys of all of them; else the key's own."""
    only = None if caller.manages_projects else caller.project
    cursors = Cursors(["projects", only], [str])
    (after,) = cursors.decode(cursor) or ("",)
    with api.database.read() as session:
        found = projects.list_projects(session, only, after=after, limit=limit + 1)
        views = [project_view(row, usage_of(session, row.name)) for row in found[:limit]]
    more = cursors.encode((found[limit - 1].name,)) if len(found) > limit else None
    return page(views, more)


@router.post("/v1/projects", status_code=201, response_model=Project)
@needs(Scope.ADMIN, change="project.create")
def create_project(
    new: NewProject, request: Request, api: Api, caller: Calling, change: Changing, key: IdempotencyKey = None
) -> Response:
    """Make a project."""
    manages(caller)
    quotas = Quotas(new.max_studies, new.max_running_trials, new.max_stored_bytes)

    def work(session: Session) -> Response:
        row = projects.create_project(session, new.name, new.description, quotas, created_by=caller.name)
        change.note(session, row.name, project=row.name)
        return answer(project_view(row, usage_of(session, row.name)), 201, location=f"/v1/projects/{row.name}")

    return once(api, caller.project, request, key, work)


@router.get("/v1/projects/{name:id}", response_model=Project)
@needs(Scope.ADMIN)
def get_project(name: str, api: Api, caller: Calling) -> Response:
    """One project: for keys of one project their own alone."""
    with api.database.read() as session:
        if not caller.manages_projects and name != caller.project:
            raise projects.not_found(name)
        row = projects.find_project(session, name)
        return answer(project_view(row, usage_of(session, row.name)))


@router.patch("/v1/projects/{name:id}", response_model=Project)
@needs(Scope.ADMIN, change="project.change")
def change_project(name: str, changes: ProjectChanges, api: Api, caller: Calling, change: Changing) -> Response:
    """Change the words or quotas of a project. What exceeds a lower quota stays and runs on; nothing is added."""
    manages(caller)
    given = changes.model_dump(exclude_unset=True)

    def work(session: Session) -> Response:
        quotas = {field: value for field, value in given.items() if field != "description"}
        row = projects.change_project(session, name, given.get("description"), quotas)
        change.note(session, row.name, project=row.name, **quotas)
        return answer(project_view(row, usage_of(session, row.name)))

    return api.database.run(work)


@router.delete("/v1/projects/{name:id}", status_code=204, response_class=Response)
@needs(Scope.ADMIN, change="project.delete")
def delete_project(name: str, api: Api, caller: Calling, change: Changing) -> Response:
    """Forget a project without studies, data sets and keys in force. Its audit log stays."""
    manages(caller)

    def work(session: Session) -> None:
        projects.delete_project(session, name)
        change.note(session, name, project=name)

    api.database.run(work)
    return Response(status_code=204)


def manages(caller: Caller) -> None:
    """Return where the caller may change what all projects share.

    Raises:
        Forbidden: their key is of one project.
    """
    if not caller.manages_projects:
        raise Forbidden(
            f"Expected a key of all projects (`fettle keys create --all-projects`). Received one of {caller.project!r}."
        )


def project_view(row: tables.Project, usage: Usage) -> Project:
    """A project as it is shown."""
    return Project(
        name=row.name,
        description=row.description,
        max_studies=row.max_studies,
        max_running_trials=row.max_running_trials,
        max_stored_bytes=row.max_stored_bytes,
        usage=ProjectUsage(studies=usage.studies, running_trials=usage.running_trials, stored_bytes=usage.stored_bytes),
        created_by=row.created_by,
        created_at=rfc3339(row.created_at),
    )
