"""What came out of a study: its best trials."""

from __future__ import annotations

from bisect import bisect_right

from fastapi import Response
from sqlalchemy.orm import Session

from app.api import schemas
from app.api.access import needs
from app.api.answers import page
from app.api.deps import DEFAULT_LIMIT, Api, CursorText, Limit, Project, Service
from app.api.pagination import Cursors
from app.api.routing import router as make_router
from app.api.trial_texts import fixed_bytes, trial_texts
from app.domain.access import Scope
from app.domain.json import loads
from app.store import listing, tables, trials
from app.store.studies import find_study

router = make_router("results")

NUMBER_BYTES = 40
"""What a number of a front takes in memory, with its place."""


@router.get("/v1/studies/{study_id:id}/best", response_model=schemas.TrialPage)
@needs(Scope.READ)
async def get_best(
    study_id: str, api: Api, project: Project, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> Response:
    """The best feasible trial, or with several objectives the Pareto front, by number."""
    cursors = Cursors(["best", study_id], [int])
    after = cursors.decode(cursor)

    def work() -> Response:
        with api.database.read() as session:
            study = find_study(session, project, study_id)
            numbers = _best_numbers(api, session, study)
            begin = 0 if after is None else bisect_right(numbers, after[0])
            ids = trials.ids_by_number(session, study.id, numbers[begin : begin + limit + 1])
            found = listing.part_of_trials(session, ids, limit, fixed_bytes(study))
            more = cursors.encode((found.trials[-1].number,)) if found.has_more else None
            return page(trial_texts(session, study, found.trials), more)

    return await api.turns.run(work)


def _best_numbers(api: Service, session: Session, study: tables.Study) -> tuple[int, ...]:
    """The numbers of the best trials in order; with several objectives found once for each trial that finishes."""
    from app.tuning.insight import best_trials

    directions = loads(study.directions)
    if len(directions) == 1:
        return () if study.best_number is None else (study.best_number,)
    key = (study.id, study.finished_count)
    kept = api.fronts.get(key)
    if kept is None:
        front = best_trials(trials.objective_values(session, study.id), directions)
        kept = tuple(sorted(trial.number for trial in front))
        api.fronts.put(key, kept, size=NUMBER_BYTES * len(kept))
    return kept
