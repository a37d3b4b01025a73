"""Trials that outside programs train: ask, heartbeat, report, tell, under the same leases as a worker's."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Request, Response
from pydantic import BaseModel, Field, StrictInt, StrictStr
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.api import schemas
from app.api.access import needs
from app.api.answers import answer
from app.api.deps import Api, IdempotencyKey, Project, Service
from app.api.idempotency import again, once
from app.api.problems import invalid_request
from app.api.routing import router as make_router
from app.api.trial_texts import Fixed, fixed_bytes, trial_text
from app.api.views import definition_of
from app.domain.access import Scope
from app.domain.external import MOST_METRIC_NAMES, Judgement, Told, missing_values, outcome_of, timed_out
from app.domain.families import FAMILIES
from app.domain.json import decode_number, dumps, loads
from app.domain.space import FiniteFloat
from app.domain.study import MetricName, Seconds, StudyDefinition, StudyState
from app.domain.trial import FailureReason, Proposal, Reservation
from app.errors import FieldError, StateConflict, Unready
from app.store import external, leases, tables
from app.store.log import rfc3339
from app.store.portions import PAGE_BYTES
from app.store.studies import find_study, state_of
from app.store.trials import find_trial

router = make_router("external trials")

TRIALS = "/v1/studies/{study_id:id}/trials"
TRIAL = TRIALS + "/{number:number}"
RETRY_AFTER_S = 1.0
"""When to ask again where all trials are held: one may be given back, or its end make room for another."""
PAUSED_RETRY_AFTER_S = 5.0

Token = Annotated[StrictStr, Field(min_length=1, max_length=200, description="The token that `:ask` gave.")]
Measured = FiniteFloat | Literal["NaN", "Infinity", "-Infinity"]
Measures = dict[MetricName, Measured]


class _Body(BaseModel):
    model_config = {"extra": "forbid"}


class Ask(_Body):
    """How many trials are wanted, and for how long each is held without a sign of life."""

    count: Annotated[StrictInt, Field(ge=1, le=100)] = 1
    lease_seconds: Annotated[Seconds, Field(ge=1, le=86_400)] = 60.0
    worker: Annotated[StrictStr, Field(min_length=1, max_length=100, description="Who asks; shown as `worker_id`.")] = (
        "external"
    )


class Holding(_Body):
    """A sign of life."""

    lease_token: Token


class Reported(Holding):
    """The metrics of an epoch, counted from 0."""

    epoch: Annotated[StrictInt, Field(ge=0, le=10**9)]
    metrics: Annotated[Measures, Field(min_length=1, max_length=100)]


class ToldError(_Body):
    """Why the trial failed. A `code` among the failure reasons counts as that one."""

    code: Annotated[StrictStr, Field(min_length=1, max_length=64)] = "EXCEPTION"
    message: Annotated[StrictStr, Field(max_length=10_000)] = ""


class Tell(Holding):
    """How a trial ended. `values` are the objectives' and, where constraints are on others, further metrics."""

    state: Literal["COMPLETE", "FAIL", "PRUNED"]
    values: Annotated[Measures, Field(max_length=100)] = {}
    error: ToldError | None = None


class Lease(BaseModel):
    """The right to report on a trial. It ends at `expires_at` unless it is renewed by any sign of life."""

    token: str
    expires_at: schemas.Time


class AskedTrial(BaseModel):
    """A trial to train."""

    number: int
    attempt: int
    hyperparameters: dict[str, schemas.HyperparameterValue]
    lease: Lease


class Asked(BaseModel):
    """Trials to train; where there is none, whether and when to ask again."""

    items: list[AskedTrial]
    study_state: StudyState
    retry_after_seconds: float | None = Field(
        default=None, description="Null where trials came, and where none will come any more."
    )


class Alive(BaseModel):
    """The renewed lease. `should_stop`: end the trial and tell what it has."""

    expires_at: schemas.Time
    should_stop: bool


class Verdict(BaseModel):
    """What to do after an epoch: `should_prune`: tell PRUNED; `should_stop`: end the trial and tell what it has."""

    should_prune: bool
    should_stop: bool


@router.post(TRIALS + ":ask", response_model=Asked)
@needs(Scope.WORK)
async def ask(
    study_id: str, api: Api, project: Project, request: Request, wanted: Ask | None = None, key: IdempotencyKey = None
) -> Response:
    """Take up to `count` trials to train them elsewhere, fewer where their fixed hyperparameters take megabytes."""
    known = await run_in_threadpool(again, api, project, request, key)
    if known is not None:
        return known
    asked = wanted or Ask()
    claim = await run_in_threadpool(_claim, api, project, study_id, asked)
    try:
        drawn = await api.asks.run(partial(_drawn, api, claim))
    except Unready:
        await run_in_threadpool(_give_back, api, claim.study_id, claim.reserved)
        raise
    return await run_in_threadpool(_handed_out, api, project, request, key, asked, claim, drawn)


@dataclass(frozen=True, slots=True)
class _Claim:
    """Trials of a study that were reserved for whoever asks."""

    study_id: int
    definition: StudyDefinition
    reserved: list[Reservation]


def _claim(api: Service, project: str, study_id: str, asked: Ask) -> _Claim:
    with api.database.read() as session:
        study = _external_study(session, project, study_id)
    definition = definition_of(study)
    count = min(asked.count, max(1, PAGE_BYTES // max(1, fixed_bytes(study))))
    reserved = api.database.run(
        lambda session: leases.reserve(session, study.id, asked.worker, count, asked.lease_seconds)
    )
    return _Claim(study.id, definition, reserved)


def _drawn(api: Service, claim: _Claim) -> list[Proposal | Exception]:
    """Hyperparameters for what was reserved, or what the sampler raised."""
    if not claim.reserved:
        return []
    return api.external().ask(claim.study_id, claim.definition, claim.reserved)


def _handed_out(
    api: Service,
    project: str,
    request: Request,
    key: str | None,
    asked: Ask,
    claim: _Claim,
    drawn: list[Proposal | Exception],
) -> Response:
    """The answer that hands trials out, which they start with."""
    proposals = _proposals(api, claim, drawn)
    texts = {p.reservation.trial_id: p.text if p.varied is None else dumps(p.hyperparameters) for p in proposals}

    def work(session: Session) -> Response:
        started = leases.start(session, claim.study_id, proposals, asked.worker, "external", asked.lease_seconds)
        held = [p for p in proposals if p.reservation.trial_id in started]
        pairs = [(p.reservation.trial_id, p.reservation.token) for p in held]
        expiry = leases.promise(session, pairs, asked.lease_seconds)
        items = [
            _asked(p.reservation, texts[p.reservation.trial_id], expiry[p.reservation.trial_id])
            for p in held
            if p.reservation.trial_id in expiry
        ]
        return answer(_answer_of(session, claim.study_id, items, at_once=bool(proposals)), study=claim.study_id)

    # Leases that nobody was told of end by themselves; most asks have no key, and there are many of them.
    response = once(api, project, request, key, work, always=False)
    told = {item["lease"]["token"] for item in loads(bytes(response.body).decode())["items"]}
    _give_back(api, claim.study_id, [p.reservation for p in proposals if p.reservation.token not in told])
    return response


def _proposals(api: Service, claim: _Claim, drawn: list[Proposal | Exception]) -> list[Proposal]:
    """What was drawn; a trial whose sampler raised has failed by it."""
    proposals: list[Proposal] = []
    for reservation, proposal in zip(claim.reserved, drawn, strict=True):
        if isinstance(proposal, Proposal):
            proposals.append(proposal)
            continue
        pairs, words = _pairs([reservation]), f"The sampler raised {type(proposal).__name__}: {proposal}"
        api.database.run(
            lambda session, pairs=pairs, words=words: leases.fail(  # type: ignore[misc]
                session, claim.study_id, pairs, FailureReason.EXCEPTION, "SAMPLER_FAILED", words
            )
        )
    return proposals


def _asked(reservation: Reservation, hyperparameters: str, expires_at: float) -> str:
    """An `AskedTrial` as JSON; its hyperparameters were written out before the transaction that this happens in."""
    lease = Lease(token=reservation.token, expires_at=rfc3339(expires_at))
    trial = AskedTrial(number=reservation.number, attempt=reservation.attempt, hyperparameters={}, lease=lease)
    return trial.model_dump_json().replace('"hyperparameters":{}', f'"hyperparameters":{hyperparameters}', 1)


def _answer_of(session: Session, study_id: int, items: list[str], *, at_once: bool) -> str:
    """An `Asked` as JSON; `at_once`: trials were drawn, though all of them took earlier results or are drawn anew."""
    state = state_of(session, study_id)
    retry = {StudyState.RUNNING: RETRY_AFTER_S, StudyState.PAUSED: PAUSED_RETRY_AFTER_S}
    asked = Asked(items=[], study_state=state)
    if not items and state in retry:
        asked = Asked(items=[], study_state=state, retry_after_seconds=0.0 if at_once else retry[state])
    return asked.model_dump_json().replace('"items":[]', f'"items":[{",".join(items)}]', 1)


def _pairs(reservations: list[Reservation]) -> list[leases.Lease]:
    return [(r.trial_id, r.token) for r in reservations]


def _give_back(api: Service, study_id: int, reservations: list[Reservation]) -> None:
    """Release what was not handed out: another request with the same key was served first, or the study paused."""
    if not reservations:
        return
    api.database.run(lambda session: leases.release(session, study_id, _pairs(reservations), "RELEASED"))
    for reservation in reservations:
        api.external().forget(study_id, reservation.trial_id)


@router.post(TRIAL + ":heartbeat", response_model=Alive)
@needs(Scope.WORK)
def heartbeat(study_id: str, number: int, holding: Holding, api: Api, project: Project) -> Response:
    """Renew the lease of a trial, for as long as it was asked for."""
    _, definition = _opened(api, project, study_id)

    def work(session: Session) -> tuple[external.HeldTrial, float, bool]:
        study = _external_study(session, project, study_id)
        trial = external.held_trial(session, study.id, number, holding.lease_token)
        if _timed_out(session, definition, trial):
            return trial, trial.at, True
        return trial, external.renew(session, trial), external.is_halted(session, study.id)

    trial, expires_at, stop = api.database.run(work)
    stop = stop or _judged(api, definition, trial, trial.epochs - 1).stop
    return answer(Alive(expires_at=rfc3339(expires_at), should_stop=stop))


@router.post(TRIAL + ":report", response_model=Verdict)
@needs(Scope.WORK)
def report(study_id: str, number: int, reported: Reported, api: Api, project: Project) -> Response:
    """Record the metrics of an epoch, renew the lease, and hear whether to go on. The same report may be repeated."""
    # Made before the transaction: the first call imports Optuna.
    studies, metrics, most = api.external(), _numbers(reported.metrics), api.settings.max_epochs
    if reported.epoch >= most:
        message = f"Expected an epoch below {most:,}, this service's limit. Received: {reported.epoch:,}"
        raise invalid_request([FieldError(("epoch",), message)])
    key_id, definition = _opened(api, project, study_id)
    known = studies.metric_names(key_id)

    def work(session: Session) -> tuple[external.HeldTrial, bool, Collection[str]] | None:
        study = _external_study(session, project, study_id)
        trial = external.held_trial(session, study.id, number, reported.lease_token)
        if _timed_out(session, definition, trial):
            return None
        names = _named(session, study.id, metrics, known)
        external.report(session, study, trial, reported.epoch, metrics)
        return trial, external.is_halted(session, study.id), names

    written = api.database.run(work)
    if written is None:
        return answer(Verdict(should_prune=False, should_stop=True))
    trial, is_halted, names = written
    studies.know_metrics(trial.study_id, names)
    judged = _judged(api, definition, trial, reported.epoch)
    return answer(Verdict(should_prune=judged.prune, should_stop=is_halted or judged.stop))


@router.post(TRIAL + ":tell", response_model=schemas.Trial)
@needs(Scope.WORK)
def tell(study_id: str, number: int, told: Tell, api: Api, project: Project) -> Response:
    """Record how a trial ended. The same end may be told again."""
    studies = api.external()
    end = Told(
        told.state,
        _numbers(told.values),
        None if told.error is None else told.error.code,
        None if told.error is None else told.error.message or None,
    )
    if told.error is not None and told.state != "FAIL":
        raise invalid_request([FieldError(("error",), f"Expected none with the state {told.state}. Received one")])
    with api.database.read() as session:
        study = _external_study(session, project, study_id)
        known = external.told_trial(session, study.id, number, told.lease_token)
    if known is None:
        raise external.lost(number)
    definition = definition_of(study)
    fixed, held = Fixed.of(definition), studies.attributes(study.id, known.id)
    named = studies.metric_names(study.id)

    def work(session: Session) -> tuple[Response, int, int, Collection[str]]:
        study = _external_study(session, project, study_id)
        trial = external.told_trial(session, study.id, number, told.lease_token)
        if trial is None:
            raise external.lost(number)
        names = _named(session, study.id, end.values, named)
        curve = external.curve(session, trial.id)
        missing = missing_values(definition, end, curve)
        if missing:
            raise invalid_request(missing)
        attributes = loads(trial.system_attributes) if held is None else held
        seconds = max(0.0, trial.at - trial.started_at)
        limit = definition.execution.trial_timeout_seconds
        if limit is not None and trial.state == "RUNNING" and seconds >= limit:
            outcome = timed_out(trial.id, told.lease_token, limit, seconds=seconds, attributes=attributes)
        else:
            outcome = outcome_of(
                definition, end, curve, trial.id, told.lease_token, seconds=seconds, attributes=attributes
            )
        if not external.tell(session, study.id, outcome):
            raise external.lost(number)
        session.expire_all()
        ended = find_trial(session, study.id, number)
        return answer(trial_text(session, study, ended, fixed)), study.id, trial.id, names

    response, key_id, trial_id, names = api.database.run(work)
    studies.know_metrics(key_id, names)
    studies.forget(key_id, trial_id)
    return response


def _opened(api: Service, project: str, study_id: str) -> tuple[int, StudyDefinition]:
    """The study's row and its definition, read before a transaction that needs it: to parse it may take a while.

    What is asked of it never changes.
    """
    with api.database.read() as session:
        study = _external_study(session, project, study_id)
    return study.id, definition_of(study)


def _external_study(session: Session, project: str, study_id: str) -> tables.Study:
    study = find_study(session, project, study_id)
    family = FAMILIES.get(study.family or "")
    if family is None or family.trained_here:
        raise StateConflict(f"Expected a study of the family 'external'. Received one of {study.family!r}.")
    return study


def _timed_out(session: Session, definition: StudyDefinition, trial: external.HeldTrial) -> bool:
    """End a trial that has run past its time limit."""
    limit = definition.execution.trial_timeout_seconds
    if limit is None or not trial.is_overdue(limit):
        return False
    external.time_out(session, trial, limit)
    return True


def _judged(api: Service, definition: StudyDefinition, trial: external.HeldTrial, up_to: int) -> Judgement:
    """What pruner and early stopping say after an epoch; nothing where the study has neither."""
    if definition.pruner.name == "none" and definition.training.early_stopping is None:
        return Judgement(prune=False, stop=False)
    return api.external().judge(definition, trial, up_to)


def _named(session: Session, study_id: int, metrics: Collection[str], known: frozenset[str]) -> Collection[str]:
    """The names of the study's metrics, with those that are reported now; `known` are some that it had before.

    Raises:
        Invalid: these would be too many.
    """
    if known.issuperset(metrics):
        return known
    return external.name_metrics(session, study_id, metrics, MOST_METRIC_NAMES)


def _numbers(measures: dict[str, Any]) -> dict[str, float]:
    return {name: decode_number(value) for name, value in measures.items()}
