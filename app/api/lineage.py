"""Where a trial of a population comes from."""

from __future__ import annotations

from fastapi import Response

from app.api import schemas
from app.api.access import needs
from app.api.answers import page
from app.api.deps import Api, Project
from app.api.routing import router as make_router
from app.api.trial_texts import trial_texts
from app.domain.access import Scope
from app.store.studies import find_study
from app.store.trials import find_trial, lineage

router = make_router("trials")


@router.get("/v1/studies/{study_id:id}/trials/{number:number}/lineage", response_model=schemas.TrialPage)
@needs(Scope.READ)
def get_lineage(study_id: str, number: int, api: Api, project: Project) -> Response:
    """A trial and those whose weights it went on from, the first one first: its schedule of hyperparameters."""
    with api.database.read() as session:
        study = find_study(session, project, study_id)
        find_trial(session, study.id, number)
        return page(trial_texts(session, study, lineage(session, study.id, number)))
