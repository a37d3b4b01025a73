"""Workers: who they are, what they hold; and sending one home."""

from __future__ import annotations

from fastapi import Response
from sqlalchemy.orm import Session

from app.api import schemas
from app.api.access import needs
from app.api.answers import answer, page
from app.api.deps import DEFAULT_LIMIT, Api, Calling, Changing, CursorText, Limit, Project
from app.api.pagination import Cursors
from app.api.projects import manages
from app.api.routing import router as make_router
from app.api.views import worker_view
from app.domain.access import Scope
from app.store import workers

router = make_router("workers")


@router.get("/v1/workers", response_model=schemas.WorkerPage)
@needs(Scope.READ)
def list_workers(api: Api, project: Project, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> Response:
    """All workers that were ever heard of and not forgotten, by id. Of their trials the project's own are shown."""
    cursors = Cursors(["workers"], [str])
    after = cursors.decode(cursor)
    with api.database.read() as session:
        found = workers.list_workers(session, after=None if after is None else after[0], limit=limit + 1)
        held = workers.running_trials(session, project, [worker.id for worker, _ in found[:limit]])
    more = cursors.encode((found[limit - 1][0].id,)) if len(found) > limit else None
    return page([worker_view(row, live=live, held=held[row.id]) for row, live in found[:limit]], more)


@router.post("/v1/workers/{worker_id}:drain", response_model=schemas.Worker)
@needs(Scope.ADMIN, change="worker.drain")
def drain_worker(worker_id: str, api: Api, caller: Calling, change: Changing) -> Response:
    """Let a worker finish what it holds, then stop. Workers are shared: a key of all projects is needed.

    The audit log tells it in the caller's project, and in each whose trials the worker holds.
    """
    manages(caller)

    def work(session: Session) -> Response:
        worker, live = workers.drain_worker(session, worker_id)
        for project in {caller.project, *workers.projects_served(session, worker_id)}:
            change.note(session, worker_id, project=project)
        held = workers.running_trials(session, caller.project, [worker.id])
        return answer(worker_view(worker, live=live, held=held[worker.id]))

    return api.database.run(work)
