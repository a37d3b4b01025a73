"""What a study's trials tell: importances of hyperparameters, and plots.

Computed in child processes. Answers are kept until another trial finishes.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from anyio import to_thread
from fastapi import Query, Request, Response

from app.api import schemas
from app.api.access import needs
from app.api.answers import JSON
from app.api.deps import Api, Project, Service
from app.api.problems import invalid_request
from app.api.routing import router as make_router
from app.compute import Bounds
from app.domain.access import Scope
from app.domain.stored import read_definition
from app.errors import FieldError, NotFound
from app.kept import Kept
from app.store.studies import find_study
from app.tuning.answers import answers
from app.tuning.questions import KINDS, Answer, Kind, Method, Question, Wanted, check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.domain.study import StudyDefinition
    from app.store.engine import Database

log = logging.getLogger("fettle.insights")
router = make_router("results")

KEPT_BYTES = 64_000_000
"""Memory that kept answers take together: a figure has up to some megabytes, most have some ten kilobytes."""
BOUNDS = Bounds(seconds=60.0)
"""Of one request: hundreds of hyperparameters and thousands of trials take some ten seconds on a small machine."""

MethodQuery = Annotated[Method, Query(description="How importances are told: see docs/results.md.")]
MetricQuery = Annotated[str | None, Query(max_length=64, description="An objective; the first where it is left out.")]


def kept_answers() -> Kept[Answer]:
    """An empty place for answers, by their study's row, how many of its trials have finished, and what was asked."""
    return Kept(KEPT_BYTES)


@dataclass(frozen=True, slots=True)
class AskedStudy:
    """A study as a question finds it: its row id, how far it is, and its definition."""

    id: int
    finished: int
    running: int
    definition: StudyDefinition


def asked_study(database: Database, project: str, study_id: str) -> AskedStudy:
    """Read a study that something is asked about.

    Raises:
        NotFound: there is none, or it is plain Optuna's.
    """
    with database.read() as session:
        study = find_study(session, project, study_id)
        if study.definition is None:
            raise NotFound("Expected a study of the service. Received one of plain Optuna.", code="STUDY_NOT_FOUND")
        return AskedStudy(study.id, study.finished_count, study.running, read_definition(study.definition))


async def answered(request: Request, api: Service, study: AskedStudy, questions: Sequence[Question]) -> list[Answer]:
    """The answers to questions that were checked: those that are kept, and the others from a child process.

    Raises:
        NotFound: the study was deleted meanwhile.
        LibraryMissing: importances by fANOVA without scikit-learn.
        TooExpensive, Unready, ClientDisconnect: see `app.api.turns`.
    """
    found: dict[Question, Answer | None] = dict.fromkeys(questions)
    for question in found:
        if not (question.is_live and study.running):
            found[question] = api.insights.get((study.id, study.finished, question))
    missing = tuple(question for question, known in found.items() if known is None)
    if missing:
        url = api.database.url.render_as_string(hide_password=False)
        computed = await api.turns.compute(request, answers, url, study.id, missing, bounds=BOUNDS)
        for question, answer in zip(missing, computed, strict=True):
            found[question] = answer
            if answer.fault is not None:
                log.error("insight failed: study %d, %s\n%s", study.id, question, answer.fault)
            elif not (question.is_live and study.running):
                api.insights.put((study.id, study.finished, question), answer, sys.getsizeof(answer.text))
    return [answer for answer in found.values() if answer is not None]


@router.get("/v1/studies/{study_id:id}/importances", response_model=schemas.Importances)
@needs(Scope.READ)
async def get_importances(
    study_id: str,
    request: Request,
    api: Api,
    project: Project,
    method: MethodQuery = "fanova",
    metric: MetricQuery = None,
) -> Response:
    """How much each searched hyperparameter explains of an objective; no items, and why, where nothing can be said."""
    study = await to_thread.run_sync(asked_study, api.database, project, study_id)
    metrics = [objective.metric for objective in study.definition.objectives]
    chosen = metrics[0] if metric is None else metric
    if chosen not in metrics:
        text = f"Expected an objective of the study: {', '.join(metrics)}. Received: {chosen!r}"
        raise invalid_request([FieldError(("query", "metric"), text)])
    (answer,) = await answered(request, api, study, [Question(None, Wanted((chosen,), (), method))])
    return Response(answer.text, media_type=JSON)


@router.get(
    "/v1/studies/{study_id:id}/plots/{kind:id}",
    responses={200: {"description": "A Plotly figure.", "content": {JSON: {"schema": schemas.FIGURE}}}},
)
@needs(Scope.READ)
async def get_plot(
    study_id: str,
    kind: str,
    request: Request,
    api: Api,
    project: Project,
    metric: Annotated[
        list[str] | None, Query(max_length=3, description="An objective; two or three for `pareto`.")
    ] = None,
    hyperparameter: Annotated[
        list[str] | None, Query(max_length=24, description="Axes of `parallel`, `slice` and `contour`.")
    ] = None,
    method: Annotated[Method | None, Query(description="Of `importances`; fanova where it is left out.")] = None,
) -> Response:
    """A plot of the study as a Plotly figure: `history intermediate parallel slice contour edf timeline importances
    pareto`.
    """
    study = await to_thread.run_sync(asked_study, api.database, project, study_id)
    wanted = Wanted(tuple(metric or ()), tuple(hyperparameter or ()), method)
    question = Question(_known(kind), wanted)
    check(study.definition, _known(kind), wanted)
    (answer,) = await answered(request, api, study, [question])
    return Response(answer.text, media_type=JSON)


def _known(kind: str) -> Kind:
    found = next((known for known in KINDS if known == kind), None)
    if found is None:
        raise NotFound(f"Expected a plot among: {', '.join(KINDS)}. Received: {kind[:100]!r}", code="PLOT_NOT_FOUND")
    return found
