"""The recipe of a study's best trial: a plain Keras script that trains it again without Fettle.

The trainer writes a recipe beside each model that is kept, since it alone has the layers; here it is found.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import Query, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from app.api.access import needs
from app.api.deps import Api, Project
from app.api.files import open_artifact
from app.api.routing import router as make_router
from app.api.views import definition_of
from app.domain.access import Scope
from app.domain.families import FAMILIES
from app.domain.json import loads
from app.errors import Conflict
from app.store import tables, trials
from app.store.studies import find_study

router = make_router("results")

RECIPE, MODEL = "recipe.py", "model.keras"
MEDIA_TYPE = "text/x-python"


class RecipeUnavailable(Conflict):
    """The trial has no recipe; the detail says why."""

    code, title = "RECIPE_UNAVAILABLE", "No recipe"


@router.get(
    "/v1/studies/{study_id:id}/best/recipe.py",
    response_class=StreamingResponse,
    responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
@needs(Scope.READ)
def get_recipe(
    study_id: str,
    api: Api,
    project: Project,
    trial: Annotated[int | None, Query(ge=0, lt=10**15, description="Another trial that has one, by number.")] = None,
) -> Response:
    """A Keras script that trains the best trial again without Fettle; with several objectives `trial` says which."""
    with api.database.read() as session:
        study = find_study(session, project, study_id)
        file = _recipe_of(session, study, trial)
    size, chunks = open_artifact(api.settings.resolved_artifact_url, file.path)
    name = quote(f"{study.name}-recipe.py")
    headers = {"Content-Length": str(size), "Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
    return StreamingResponse(chunks, media_type=MEDIA_TYPE, headers=headers)


def _recipe_of(session: Session, study: tables.Study, number: int | None) -> tables.Artifact:
    """The artifact that holds the recipe.

    Raises:
        Conflict: there is no best trial, no single one, or it has no recipe.
        NotFound: the study has no trial of this number.
    """
    if number is None:
        number = _best_number(study)
    row = trials.find_trial(session, study.id, number)
    files = {file.name: file for file in trials.artifacts_of(session, [row.id])[row.id]}
    if RECIPE not in files:
        raise RecipeUnavailable(_why_not(study, number, files.get(MODEL)))
    return files[RECIPE]


def _best_number(study: tables.Study) -> int:
    metrics = loads(study.objective_metrics)
    if len(metrics) > 1:
        raise RecipeUnavailable(
            f"Expected ?trial=NUMBER: with {len(metrics)} objectives there is no single best trial. "
            f"GET …/best lists those to choose from."
        )
    if study.best_number is None:
        raise RecipeUnavailable("Expected a best trial. No feasible trial has finished yet.")
    return study.best_number


def _why_not(study: tables.Study, number: int, model: tables.Artifact | None) -> str:
    if model is not None:
        reason = loads(model.details).get("no_recipe")
        return f"Trial {number} has no recipe. {reason or 'It could not be written: see the log of the trial.'}"
    family = FAMILIES.get(study.family or "")
    if family is not None and not family.needs_dataset:
        return f"Trial {number} has no recipe: the family {family.name} has no Keras model."
    keep = definition_of(study).execution.keep_models
    if keep == "none":
        return (
            f"Trial {number} has no recipe: the study keeps no models. Run it with execution.keep_models best or all."
        )
    kept = "the best one's files alone are kept" if keep == "best" else "it kept no model: see its log"
    return f"Trial {number} has no recipe: {kept}."
