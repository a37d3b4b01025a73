"""What came out of a study: its best trials, and all of them as a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import Query, Response
from fastapi.responses import StreamingResponse

from app.api import schemas
from app.api.answers import JSON, page
from app.api.deps import Api, Project, Service
from app.api.problems import invalid_request
from app.api.routing import router as make_router
from app.api.trial_texts import trial_texts
from app.api.views import definition_of
from app.domain.json import loads
from app.errors import FieldError
from app.store import listing, tables, trials
from app.store.studies import find_study

router = make_router("results")

EXPORT_BATCH = 500
"""Trials that an export reads at once."""
LEADING = ("number", "state", "reason", "feasible", "attempt")
TRAILING = (
    "selected_epoch",
    "epochs",
    "worker_id",
    "device",
    "created_at",
    "started_at",
    "finished_at",
    "duration_seconds",
)


@router.get("/v1/studies/{study_id:id}/best", response_model=schemas.TrialPage)
def get_best(study_id: str, api: Api, project: Project) -> Response:
    """The best feasible trial, or with several objectives the Pareto front."""
    from app.tuning.insight import best_trials

    with api.database.read() as session:
        study = find_study(session, project, study_id)
        directions = loads(study.directions)
        if len(directions) == 1:
            numbers = [] if study.best_number is None else [study.best_number]
        else:
            front = best_trials(trials.objective_values(session, study.id), directions)
            numbers = [trial.number for trial in front]
        found = trials.trials_by_number(session, study.id, numbers)
        return page(trial_texts(session, study, found))


@router.get(
    "/v1/studies/{study_id:id}/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {}, JSON: {"schema": {"$ref": "#/components/schemas/TrialPage"}}}}},
)
def export_trials(
    study_id: str,
    api: Api,
    project: Project,
    export_format: Annotated[Literal["csv", "json", "parquet"], Query(alias="format")] = "csv",
) -> Response:
    """All trials of a study as one file."""
    with api.database.read() as session:
        study = find_study(session, project, study_id)
    if export_format == "parquet":
        message = "Expected csv or json: this service writes no Parquet. Received: 'parquet'"
        raise invalid_request([FieldError(("query", "format"), message)])
    is_csv = export_format == "csv"
    headers = {"Content-Disposition": f'attachment; filename="{study.name}.{export_format}"'}
    chunks = _as_csv(api, study) if is_csv else _as_json(api, study)
    return StreamingResponse(chunks, media_type="text/csv" if is_csv else JSON, headers=headers)


def _batches(api: Service, study: tables.Study) -> Iterator[list[str]]:
    """All trials by number as JSON texts; no session stays open between batches."""
    last = -1
    while True:
        with api.database.read() as session:
            rows = listing.list_trials(session, study.id, after=(last,), limit=EXPORT_BATCH)
            texts = trial_texts(session, study, rows)
        if texts:
            yield texts
        if len(texts) < EXPORT_BATCH:
            return
        last = rows[-1].number


def _as_json(api: Service, study: tables.Study) -> Iterator[str]:
    yield '{"items":['
    comma = ""
    for batch in _batches(api, study):
        yield comma + ",".join(batch)
        comma = ","
    yield '],"next_cursor":null}'


def _as_csv(api: Service, study: tables.Study) -> Iterator[str]:
    names = list(definition_of(study).hyperparameters)
    metrics = loads(study.objective_metrics)
    yield _lines(
        [[*LEADING, *(f"hyperparameters.{n}" for n in names), *(f"values.{m}" for m in metrics), *TRAILING, "error"]]
    )
    for batch in _batches(api, study):
        yield _lines([_cells(loads(text), names, metrics) for text in batch])


def _cells(trial: dict[str, Any], names: Sequence[str], metrics: Sequence[str]) -> list[object]:
    values = trial["values"] or {}
    cells = [trial[name] for name in LEADING]
    cells += [trial["hyperparameters"].get(name) for name in names]
    cells += [values.get(metric) for metric in metrics]
    cells += [trial[name] for name in TRAILING]
    error = trial["error"]
    cells.append(None if error is None else f"{error['code']}: {error['message']}")
    return cells


def _lines(rows: Sequence[list[object]]) -> str:
    """Lines of CSV (RFC 4180), booleans as in JSON."""
    text = io.StringIO()
    csv.writer(text).writerows([str(cell).lower() if isinstance(cell, bool) else cell for cell in row] for row in rows)
    return text.getvalue()
