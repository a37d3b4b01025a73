"""All trials of a study as one file, streamed: a batch of trials is in memory at a time, whatever the study's size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Literal

from fastapi import Query, Response
from fastapi.responses import StreamingResponse

from app.api.access import needs
from app.api.answers import JSON
from app.api.deps import Api, Project
from app.api.export.parquet import as_parquet, require_pyarrow
from app.api.export.rows import Export
from app.api.export.texts import as_csv, as_json
from app.api.routing import router as make_router
from app.api.views import definition_of
from app.domain.access import Scope
from app.store.studies import find_study

router = make_router("results")

Format = Literal["csv", "json", "parquet"]
CSV, PARQUET = "text/csv", "application/vnd.apache.parquet"
BINARY = {"schema": {"type": "string", "format": "binary"}}

FORMATS: dict[Format, tuple[str, Callable[[Export], Iterator[bytes]]]] = {
    "csv": (CSV, as_csv),
    "json": (JSON, as_json),
    "parquet": (PARQUET, as_parquet),
}


@router.get(
    "/v1/studies/{study_id:id}/export",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {
                CSV: {"schema": {"type": "string"}},
                JSON: {"schema": {"$ref": "#/components/schemas/TrialPage"}},
                PARQUET: BINARY,
            }
        }
    },
)
@needs(Scope.READ)
def export_trials(
    study_id: str,
    api: Api,
    project: Project,
    export_format: Annotated[Format, Query(alias="format")] = "csv",
) -> Response:
    """All trials of a study as one file."""
    if export_format == "parquet":
        require_pyarrow()
    with api.database.read() as session:
        study = find_study(session, project, study_id)
    media_type, written = FORMATS[export_format]
    headers = {"Content-Disposition": f'attachment; filename="{study.name}.{export_format}"'}
    # The definition is read here: once the answer has begun it is too late to refuse one of a newer version.
    batches = written(Export(api.database, study, definition_of(study)))
    return StreamingResponse(api.turns.each(batches), media_type=media_type, headers=headers)
