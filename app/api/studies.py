"""Studies: posted, listed, changed, paused, stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Annotated, Literal

from fastapi import Header, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.api import schemas
from app.api.access import NOTHING, needs
from app.api.answers import answer, page
from app.api.dataset_views import dataset_kept
from app.api.deps import (
    DEFAULT_LIMIT,
    Api,
    Calling,
    Change,
    Changing,
    CursorText,
    IdempotencyKey,
    Limit,
    Project,
    Service,
)
from app.api.files import remove_study_files
from app.api.idempotency import again, once
from app.api.pagination import Cursors
from app.api.preparation import NewStudy, Revision, checked_definition, found_study, new_study, revised
from app.api.problems import invalid_request
from app.api.routing import StudyRoute
from app.api.routing import router as make_router
from app.api.views import study_text, study_views
from app.domain.access import Caller, Scope
from app.domain.effort import Meter
from app.domain.study import StudyDefinition, StudyState
from app.errors import FieldError, PreconditionFailed, StateConflict
from app.store import lifecycle, studies, tables
from app.store.projects import hold_project
from app.store.warm_start import keep_earlier

router = make_router("studies", StudyRoute)

MOST_CHECKS = 20
"""How often a change is checked anew because others came first: at each round one of them is through."""

Sort = Literal["name", "created_at", "-created_at"]
States = Annotated[list[StudyState], Query(alias="state", description="In one of these states.")]
Labels = Annotated[
    list[str], Query(alias="label", description="`key:value`; with several all must match.", max_length=64)
]


@router.post("/v1/studies", status_code=201, response_model=schemas.Study)
@needs(Scope.SUBMIT, change="study.create")
async def create_study(
    definition: StudyDefinition,
    request: Request,
    api: Api,
    caller: Calling,
    change: Changing,
    key: IdempotencyKey = None,
) -> Response:
    """Start a study: workers take its trials from now on."""
    known = await run_in_threadpool(again, api, caller.project, request, key)
    if known is not None:
        return known
    new = await api.checks.metered(request, partial(new_study, api, caller.project, definition))
    return await run_in_threadpool(once, api, caller.project, request, key, partial(_store, caller, change, new))


def _store(caller: Caller, change: Change, new: NewStudy, session: Session) -> Response:
    hold_project(session, caller.project)
    with dataset_kept():
        study = lifecycle.create_study(
            session,
            new.definition,
            project=caller.project,
            created_by=caller.name,
            sample_limit=new.sample_limit,
            text=new.text,
        )
    keep_earlier(session, study.id, new.earlier)
    change.note(session, study.public_id)
    location = f"/v1/studies/{study.public_id}"
    return answer(study_text(session, study), 201, location=location, etag=study.revision, study=study.id)


@router.post("/v1/studies:validate", response_model=schemas.Validation)
@needs(Scope.SUBMIT, change=NOTHING)
async def validate_study(definition: StudyDefinition, request: Request, api: Api, project: Project) -> Response:
    """Check a definition and fill in its defaults; nothing is stored."""

    def work(meter: Meter) -> Response:
        checked, warm = checked_definition(api, project, definition, meter)
        return answer(
            schemas.Validation.model_construct(
                definition=warm.definition,
                structural=list(checked.structural),
                runtime=list(checked.runtime),
                stackable=checked.stackable,
                warnings=[*checked.warnings, *warm.warnings],
                memory=None if checked.memory is None else schemas.Memory(**asdict(checked.memory)),
            )
        )

    return await api.checks.metered(request, work)


@router.get("/v1/studies", response_model=schemas.StudyPage)
@needs(Scope.READ)
def list_studies(
    api: Api,
    project: Project,
    state: States = [],  # noqa: B006 - FastAPI copies it
    label: Labels = [],  # noqa: B006
    q: Annotated[str | None, Query(max_length=200, description="In the name or the description.")] = None,
    sort: Sort = "-created_at",
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response:
    """The project's studies."""
    narrowed = studies.StudyFilter(states=state, labels=_labels(label), text=q)
    cursors = Cursors(
        ["studies", project, sort, sorted(state), sorted(label), q], [str if sort == "name" else float, int]
    )
    after = cursors.decode(cursor)
    with api.database.read() as session:
        found, has_more = studies.studies_page(session, project, narrowed, sort=sort, after=after, limit=limit)
        views = study_views(session, found)
    more = cursors.encode(studies.sort_key(found[-1], sort)) if has_more else None
    return page(views, more)


def _labels(texts: list[str]) -> list[tuple[str, str]]:
    labels = []
    for text in texts:
        key, colon, value = text.partition(":")
        if not colon or not key:
            raise invalid_request([FieldError(("query", "label"), f"Expected key:value. Received: {text[:100]!r}")])
        labels.append((key, value))
    return labels


@router.get("/v1/studies/{study_id:id}", response_model=schemas.Study)
@needs(Scope.READ)
def get_study(study_id: str, api: Api, project: Project) -> Response:
    """One study."""
    with api.database.read() as session:
        study = studies.find_study(session, project, study_id)
        return answer(study_text(session, study), etag=study.revision)


@router.patch("/v1/studies/{study_id:id}", response_model=schemas.Study)
@needs(Scope.SUBMIT, change="study.change")
async def change_study(
    study_id: str,
    changes: schemas.StudyChanges,
    request: Request,
    api: Api,
    project: Project,
    change: Changing,
    if_match: Annotated[
        str | None, Header(alias="If-Match", description="The ETag that the change is meant for.")
    ] = None,
) -> Response:
    """Change words, labels, budget, priority or parallel trials of a study."""

    def check(meter: Meter) -> Revision:
        study = found_study(api, project, study_id)
        _check_revision(if_match, study)
        return revised(api, study, changes, meter)

    fields = sorted(changes.model_fields_set)
    for _ in range(MOST_CHECKS):
        revision = await api.checks.metered(request, check)
        stored = await run_in_threadpool(_revise, api, project, study_id, revision, if_match, change, fields)
        if stored is not None:
            return stored
    raise StateConflict(
        f"Expected a study that nobody else changes meanwhile. Received one that was changed {MOST_CHECKS} times while "
        "this change was checked: try again."
    )


def _revise(
    api: Service,
    project: str,
    study_id: str,
    revision: Revision,
    if_match: str | None,
    change: Change,
    fields: list[str],
) -> Response | None:
    """Write what was checked; None where the study has another revision by now, which is to be checked first."""

    def work(session: Session) -> Response | None:
        study = studies.locked(session, studies.find_study(session, project, study_id).id)
        _check_revision(if_match, study)
        if study.revision != revision.of:
            return None
        if revision.definition is not None:
            study = lifecycle.update_study(session, study.id, revision.definition, revision.text)
        change.note(session, study.public_id, fields=fields)
        return answer(study_text(session, study), etag=study.revision)

    return api.database.run(work)


def _check_revision(if_match: str | None, study: tables.Study) -> None:
    if if_match is None or if_match.strip() == "*":
        return
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in if_match.split(",")]
    if str(study.revision) not in tags:
        raise PreconditionFailed(
            f'Expected If-Match: "{study.revision}", the present revision. Received: {if_match[:100]}'
        )


@router.delete("/v1/studies/{study_id:id}", status_code=204, response_class=Response)
@needs(Scope.SUBMIT, change="study.delete")
def delete_study(study_id: str, api: Api, project: Project, change: Changing) -> Response:
    """Forget a study that is over, with its trials, events and files."""

    def work(session: Session) -> None:
        lifecycle.delete_study(session, studies.find_study(session, project, study_id).id)
        change.note(session, study_id)

    api.database.run(work)
    remove_study_files(api.settings.resolved_artifact_url, study_id)
    return Response(status_code=204)


@router.post("/v1/studies/{study_id:id}:pause", response_model=schemas.Study)
@needs(Scope.SUBMIT, change="study.pause")
def pause_study(study_id: str, api: Api, project: Project, change: Changing) -> Response:
    """Let running trials finish, start no others until it is resumed."""
    return _act(api, project, study_id, lifecycle.pause, change)


@router.post("/v1/studies/{study_id:id}:resume", response_model=schemas.Study)
@needs(Scope.SUBMIT, change="study.resume")
def resume_study(study_id: str, api: Api, project: Project, change: Changing) -> Response:
    """Go on with a paused study."""
    return _act(api, project, study_id, lifecycle.resume, change)


@router.post("/v1/studies/{study_id:id}:stop", response_model=schemas.Study)
@needs(Scope.SUBMIT, change="study.stop")
def stop_study(study_id: str, api: Api, project: Project, change: Changing) -> Response:
    """Finish what runs, start nothing more."""
    return _act(api, project, study_id, lifecycle.stop, change)


@router.post("/v1/studies/{study_id:id}:cancel", response_model=schemas.Study)
@needs(Scope.SUBMIT, change="study.cancel")
def cancel_study(study_id: str, api: Api, project: Project, change: Changing) -> Response:
    """End the study now, with what runs."""
    return _act(api, project, study_id, lifecycle.cancel, change)


def _act(
    api: Api, project: str, study_id: str, action: Callable[[Session, int], tables.Study], change: Change
) -> Response:
    def work(session: Session) -> Response:
        study = action(session, studies.find_study(session, project, study_id).id)
        change.note(session, study_id)
        return answer(study_text(session, study), etag=study.revision)

    return api.database.run(work)
