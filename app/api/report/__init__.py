"""A study as one self-contained HTML page: what was asked, what came out, and how it got there.

The page needs nothing but itself: plotly.js is in it, its policy forbids it to load anything, and whatever a user or an
error wrote is escaped. It is light or dark as the reader's system is, and prints.
"""

from __future__ import annotations

from urllib.parse import quote

from anyio import to_thread
from fastapi import Request, Response
from fastapi.responses import HTMLResponse

from app.api.access import needs
from app.api.deps import Api, Project
from app.api.insights import answered, asked_study
from app.api.report.content import gathered, questions_of
from app.api.report.page import page_of, page_policy
from app.api.routing import router as make_router
from app.domain.access import Scope

router = make_router("results")


@router.get(
    "/v1/studies/{study_id:id}/report",
    response_class=HTMLResponse,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
@needs(Scope.READ)
async def get_report(study_id: str, request: Request, api: Api, project: Project) -> Response:
    """A page about the study to keep, send or print; it works offline."""
    study = await to_thread.run_sync(asked_study, api.database, project, study_id)
    plots = questions_of(study.definition)
    answers = await answered(request, api, study, list(plots.values()))

    def work() -> Response:
        content = gathered(api, project, study_id, dict(zip(plots, answers, strict=True)))
        name = quote(f"{content.name}-report.html")
        headers = {"Content-Disposition": f"inline; filename*=UTF-8''{name}", "Content-Security-Policy": page_policy()}
        return HTMLResponse(page_of(content), headers=headers)

    return await api.turns.run(work)
