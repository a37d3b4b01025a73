"""Trials: listed, enqueued, cancelled; their metrics, logs and files."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from sqlalchemy.orm import Session

from app.api import schemas
from app.api.access import needs
from app.api.answers import answer, page
from app.api.deps import DEFAULT_LIMIT, Api, Changing, CursorText, IdempotencyKey, Limit, Project, Service
from app.api.files import open_artifact
from app.api.idempotency import again, once
from app.api.pagination import Cursors
from app.api.problems import invalid_request
from app.api.routing import router as make_router
from app.api.trial_texts import Fixed, fixed_bytes, metrics_text, trial_text, trial_texts
from app.api.views import artifact_view, definition_of
from app.domain.access import Scope
from app.domain.checks.space import check_enqueued
from app.domain.fixed import are_large, varied
from app.domain.json import loads
from app.domain.study import StudyDefinition
from app.domain.trial import TrialState
from app.errors import FieldError
from app.store import lifecycle, listing, tables, trials
from app.store.log import rfc3339
from app.store.retention import What, pruned_at
from app.store.studies import find_study
from app.store.trials import find_trial

router = make_router("trials")

TRIALS = "/v1/studies/{study_id:id}/trials"
TRIAL = TRIALS + "/{number:number}"
EPOCHS_OF_A_PAGE = 1000
"""Epochs that a page of metrics has where no limit is given."""
Sort = Literal["number", "-number", "value", "-value"]
States = Annotated[list[TrialState], Query(alias="state", description="In one of these states.")]
Attempt = Annotated[int | None, Query(ge=0, le=10**9, description="One attempt; by default the current one.")]


@router.get(TRIALS, response_model=schemas.TrialPage)
@needs(Scope.READ)
def list_trials(
    study_id: str,
    api: Api,
    project: Project,
    state: States = [],  # noqa: B006 - FastAPI copies it
    feasible: bool | None = None,
    sort: Sort = "number",
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response:
    """A study's trials, by number or by the first objective's value; those without value last.

    A page ends early, with a cursor, where its trials take 4 MB.
    """
    kinds = [int] if sort.endswith("number") else [float, int]
    cursors = Cursors(["trials", study_id, sort, sorted(state), feasible], kinds)
    after = cursors.decode(cursor)
    with api.database.read() as session:
        listing.at_one_moment(session)
        study = find_study(session, project, study_id)
        if sort.endswith("value") and len(loads(study.directions)) > 1:
            message = f"Expected number or -number: the study has several objectives. Received: {sort!r}"
            raise invalid_request([FieldError(("query", "sort"), message)])
        found = listing.trials_page(
            session,
            study.id,
            states=state,
            feasible=feasible,
            sort=sort,
            after=after,
            limit=limit,
            fixed_bytes=fixed_bytes(study),
        )
        more = cursors.encode(listing.sort_key(found.trials[-1], sort)) if found.has_more else None
        return page(trial_texts(session, study, found.trials), more)


@router.post(TRIALS, status_code=201, response_model=schemas.Trial)
@needs(Scope.SUBMIT, change="trial.enqueue")
def enqueue_trial(
    study_id: str,
    trial: schemas.NewTrial,
    request: Request,
    api: Api,
    project: Project,
    change: Changing,
    key: IdempotencyKey = None,
) -> Response:
    """Ask for a trial with these hyperparameters; what is left out is drawn by the sampler."""
    known = again(api, project, request, key)
    if known is not None:
        return known
    definition = _definition(api, project, study_id)  # what it searches never changes
    values, errors = check_enqueued(definition, trial.hyperparameters)
    if errors:
        raise invalid_request(errors)
    fixed = Fixed.of(definition)
    # Fixed ones may be given, as they are: they need not be kept again.
    kept = varied(definition.fixed, values) if are_large(definition.fixed) else values

    def work(session: Session) -> Response:
        study = find_study(session, project, study_id)
        row = lifecycle.enqueue(session, study.id, kept, api.settings.max_waiting_trials)
        change.note(session, study_id, trial=row.number)
        location = f"/v1/studies/{study_id}/trials/{row.number}"
        return answer(trial_text(session, study, row, fixed), 201, location=location, study=study.id)

    return once(api, project, request, key, work)


def _definition(api: Service, project: str, study_id: str) -> StudyDefinition:
    """A study's definition, read before a transaction that needs it: to parse it may take a while."""
    with api.database.read() as session:
        study = find_study(session, project, study_id)
    return definition_of(study)


@router.get(TRIAL, response_model=schemas.Trial)
@needs(Scope.READ)
def get_trial(study_id: str, number: int, api: Api, project: Project) -> Response:
    """One trial."""
    with api.database.read() as session:
        study = find_study(session, project, study_id)
        return answer(trial_text(session, study, find_trial(session, study.id, number)))


@router.post(TRIAL + ":cancel", response_model=schemas.Trial)
@needs(Scope.SUBMIT, change="trial.cancel")
def cancel_trial(study_id: str, number: int, api: Api, project: Project, change: Changing) -> Response:
    """End a waiting or running trial."""
    fixed = Fixed.of(_definition(api, project, study_id))

    def work(session: Session) -> Response:
        study = find_study(session, project, study_id)
        trial = lifecycle.cancel_trial(session, study.id, number)
        change.note(session, study_id, trial=number)
        return answer(trial_text(session, study, trial, fixed))

    return api.database.run(work)


@router.get(TRIAL + "/metrics", response_model=schemas.MetricPage)
@needs(Scope.READ)
def get_metrics(
    study_id: str,
    number: int,
    api: Api,
    project: Project,
    attempt: Attempt = None,
    limit: Limit = EPOCHS_OF_A_PAGE,
    cursor: CursorText = None,
) -> Response:
    """What an attempt of the trial reported, epoch by epoch."""
    cursors = Cursors(["metrics", study_id, number, attempt], [int, int])
    after = cursors.decode(cursor)
    with api.database.read() as session:
        trial = _find(session, project, study_id, number)
        gone_at = _pruned_at(session, trial, What.METRICS)
        # All pages are of the attempt that the first one was of, though another one may have begun meanwhile.
        of, last = (trial.attempt if attempt is None else attempt, -1) if after is None else after
        found = trials.metrics_page(session, trial.id, of, last, limit)
        more = cursors.encode((of, found.rows[-1].epoch)) if found.is_cut else None
        return page([metrics_text(row) for row in found.rows], more, pruned_at=gone_at)


@router.get(TRIAL + "/logs", response_class=PlainTextResponse)
@needs(Scope.READ)
def get_logs(study_id: str, number: int, api: Api, project: Project, attempt: Attempt = None) -> Response:
    """What the trial's attempts logged."""
    with api.database.read() as session:
        trial = _find(session, project, study_id, number)
        text = trials.logs_of(session, trial, attempt)
        gone_at = None if text else _pruned_at(session, trial, What.LOGS)
    if gone_at is not None:
        text = f"(What was logged here was deleted at {gone_at} by this service's retention.)\n"
    return PlainTextResponse(text)


@router.get(TRIAL + "/artifacts", response_model=schemas.ArtifactPage)
@needs(Scope.READ)
def list_artifacts(study_id: str, number: int, api: Api, project: Project) -> Response:
    """The trial's files."""
    with api.database.read() as session:
        trial = _find(session, project, study_id, number)
        files = trials.artifacts_of(session, [trial.id])[trial.id]
        return page([artifact_view(file) for file in files], pruned_at=_pruned_at(session, trial, What.FILES))


@router.get(
    TRIAL + "/artifacts/{name}",
    response_class=StreamingResponse,
    responses={200: {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}},
)
@needs(Scope.READ)
def get_artifact(study_id: str, number: int, name: str, api: Api, project: Project) -> Response:
    """The bytes of one of the trial's files."""
    with api.database.read() as session:
        trial = _find(session, project, study_id, number)
        gone_at = _pruned_at(session, trial, What.FILES)
        file = trials.find_artifact(session, trial.id, name, pruned_at=gone_at)
    size, chunks = open_artifact(api.settings.resolved_artifact_url, file.path)
    headers = {"Content-Length": str(size), "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.name)}"}
    return StreamingResponse(chunks, media_type=file.media_type, headers=headers)


def _find(session: Session, project: str, study_id: str, number: int) -> tables.Trial:
    return find_trial(session, find_study(session, project, study_id).id, number)


def _pruned_at(session: Session, trial: tables.Trial, what: What) -> str | None:
    """When the retention deleted something of a trial, as the contract writes times."""
    at = pruned_at(session, trial, what)
    return None if at is None else rfc3339(at)
