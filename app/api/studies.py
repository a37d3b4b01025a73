"""Studies: posted, listed, changed, paused, stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import Header, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.api import schemas
from app.api.access import NOTHING, needs
from app.api.answers import answer, page
from app.api.dataset_views import dataset_kept, known_datasets
from app.api.deps import DEFAULT_LIMIT, Api, Calling, Change, Changing, CursorText, IdempotencyKey, Limit, Project
from app.api.files import remove_study_files
from app.api.idempotency import once
from app.api.pagination import Cursors
from app.api.problems import invalid_request
from app.api.routing import StudyRoute
from app.api.routing import router as make_router
from app.api.validation import accepted, changed, sample_limit
from app.api.views import definition_of, study_now, study_views
from app.api.warm_start import warm_started
from app.domain.access import Scope
from app.domain.registry import BUILT_IN, Families
from app.domain.study import StudyDefinition, StudyState
from app.errors import FieldError, PreconditionFailed
from app.store import lifecycle, studies, tables
from app.store.families import known_families
from app.store.projects import hold_project
from app.store.warm_start import keep_earlier

router = make_router("studies", StudyRoute)

Sort = Literal["name", "created_at", "-created_at"]
States = Annotated[list[StudyState], Query(alias="state", description="In one of these states.")]
Labels = Annotated[
    list[str], Query(alias="label", description="`key:value`; with several all must match.", max_length=64)
]


@router.post("/v1/studies", status_code=201, response_model=schemas.Study)
@needs(Scope.SUBMIT, change="study.create")
def create_study(
    definition: StudyDefinition,
    request: Request,
    api: Api,
    caller: Calling,
    change: Changing,
    key: IdempotencyKey = None,
) -> Response:
    """Start a study: workers take its trials from now on."""
    project = caller.project
    datasets, families = known_datasets(api, project, definition), _families(api, definition)
    filled = accepted(definition, api.settings, datasets, families).definition

    def work(session: Session) -> Response:
        hold_project(session, project)
        warm = warm_started(session, project, filled)
        with dataset_kept():
            study = lifecycle.create_study(
                session, warm.definition, project=project, created_by=caller.name, sample_limit=sample_limit(filled)
            )
        keep_earlier(session, study.id, warm.trials)
        change.note(session, study.public_id)
        location = f"/v1/studies/{study.public_id}"
        return answer(study_now(session, study), 201, location=location, etag=study.revision, study=study.id)

    return once(api, project, request, key, work)


def _families(api: Api, definition: StudyDefinition) -> Families:
    """The families that there are: the built-in ones suffice for those of theirs."""
    if definition.model.family in BUILT_IN:
        return BUILT_IN
    with api.database.read() as session:
        return known_families(session)


@router.post("/v1/studies:validate", response_model=schemas.Validation)
@needs(Scope.SUBMIT, change=NOTHING)
def validate_study(definition: StudyDefinition, api: Api, project: Project) -> Response:
    """Check a definition and fill in its defaults; nothing is stored."""
    datasets, families = known_datasets(api, project, definition), _families(api, definition)
    checked = accepted(definition, api.settings, datasets, families)
    with api.database.read() as session:
        warm = warm_started(session, project, checked.definition)
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
        return answer(study_now(session, study), etag=study.revision)


@router.patch("/v1/studies/{study_id:id}", response_model=schemas.Study)
@needs(Scope.SUBMIT, change="study.change")
def change_study(
    study_id: str,
    changes: schemas.StudyChanges,
    api: Api,
    project: Project,
    change: Changing,
    if_match: Annotated[
        str | None, Header(alias="If-Match", description="The ETag that the change is meant for.")
    ] = None,
) -> Response:
    """Change words, labels, budget, priority or parallel trials of a study."""

    def work(session: Session) -> Response:
        found = studies.find_study(session, project, study_id)
        study = _locked(session, found)
        _check_revision(if_match, study)
        present = definition_of(study)
        definition = changed(present, changes, api.settings, known_families(session))
        if definition != present:
            study = lifecycle.update_study(session, study.id, definition)
        change.note(session, study.public_id, fields=sorted(changes.model_fields_set))
        return answer(study_now(session, study), etag=study.revision)

    return api.database.run(work)


def _locked(session: Session, study: tables.Study) -> tables.Study:
    query = select(tables.Study).where(tables.Study.id == study.id).with_for_update(key_share=True)
    return session.scalars(query.execution_options(populate_existing=True)).one()


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
        return answer(study_now(session, study), etag=study.revision)

    return api.database.run(work)
