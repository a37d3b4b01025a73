"""What came out of a study: its best trials."""

from __future__ import annotations

from fastapi import Response

from app.api import schemas
from app.api.access import needs
from app.api.answers import page
from app.api.deps import Api, Project
from app.api.routing import router as make_router
from app.api.trial_texts import trial_texts
from app.domain.access import Scope
from app.domain.json import loads
from app.store import trials
from app.store.studies import find_study

router = make_router("results")


@router.get("/v1/studies/{study_id:id}/best", response_model=schemas.TrialPage)
@needs(Scope.READ)
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
