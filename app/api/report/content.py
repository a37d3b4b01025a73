"""What a report tells of a study, read at one moment."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.api.deps import Service
from app.api.files import open_artifact
from app.api.insights import figure_text
from app.api.report.figures import assessment_figure, curves_figure
from app.api.trial_texts import trial_texts
from app.api.views import study_now
from app.domain.json import loads
from app.domain.trial import TrialState
from app.errors import Invalid, LibraryMissing, NotFound
from app.store import artifacts, listing, tables, trials
from app.store.studies import find_study
from app.tuning.insight import best_trials

SHOWN_TRIALS = 20
"""Trials that the report's tables list."""
ASSESSMENTS = ("confusion_matrix.json", "residuals.json")
MOST_ASSESSMENT_BYTES = 5_000_000


@dataclass(frozen=True, slots=True)
class Figure:
    """A Plotly figure as JSON text, with a heading and a sentence about it."""

    name: str
    heading: str
    words: str
    text: str


@dataclass(frozen=True, slots=True)
class Content:
    """All that the page shows. `study` and the trials are as in the API's answers."""

    study: dict[str, Any]
    best: Sequence[dict[str, Any]]
    top: Sequence[dict[str, Any]]
    failed: Sequence[dict[str, Any]]
    failures: Sequence[trials.Failures]
    figures: Sequence[Figure]
    at: float

    @property
    def name(self) -> str:
        """The study's."""
        return str(self.study["name"])


def gathered(api: Service, project: str, study_id: str) -> Content:
    """Read a study for its report.

    Raises:
        NotFound: there is no such study.
    """
    with api.database.read() as session:
        study = find_study(session, project, study_id)
        shown = study_now(session, study).model_dump(mode="json")
        several = len(loads(study.directions)) > 1
        best = _best(session, study)
        top = best[:SHOWN_TRIALS] if several else _top(session, study)
        failed = _listed(session, study, states=[TrialState.FAIL], sort="-number")
        failures = trials.failures(session, study.id)
        figures_of_best = _figures_of_best(api, session, study, best[0]) if best and not several else []
    return Content(
        study=shown,
        best=best[:SHOWN_TRIALS],
        top=top,
        failed=failed,
        failures=failures,
        figures=[*_figures(api, study, several=several), *figures_of_best],
        at=time.time(),
    )


def _best(session: Session, study: tables.Study) -> list[dict[str, Any]]:
    """The best trial, or the Pareto front by its first objective."""
    directions = loads(study.directions)
    if len(directions) == 1:
        numbers = [] if study.best_number is None else [study.best_number]
    else:
        front = best_trials(trials.objective_values(session, study.id), directions)
        front.sort(key=lambda trial: (trial.values or (0.0,))[0], reverse=directions[0] == "maximize")
        numbers = [trial.number for trial in front[:SHOWN_TRIALS]]
    rows = {row.number: row for row in trials.trials_by_number(session, study.id, numbers)}
    return [loads(text) for text in trial_texts(session, study, [rows[n] for n in numbers if n in rows])]


def _top(session: Session, study: tables.Study) -> list[dict[str, Any]]:
    maximize = loads(study.directions)[0] == "maximize"
    return _listed(session, study, states=[TrialState.COMPLETE], sort="-value" if maximize else "value")


def _listed(session: Session, study: tables.Study, *, states: list[TrialState], sort: str) -> list[dict[str, Any]]:
    rows = listing.list_trials(session, study.id, states=states, sort=sort, limit=SHOWN_TRIALS)
    return [loads(text) for text in trial_texts(session, study, rows)]


PLOTS = (
    ("history", "History", "The objective of each trial, and the best so far."),
    ("pareto", "Pareto front", "Trials that no other one beats in every objective, and those that some do."),
    ("importances", "Importances", "How much of the differences between trials each hyperparameter explains (fANOVA)."),
    ("parallel", "Parallel coordinates", "Each line is a trial; its colour is the objective."),
    ("slice", "Slices", "The objective over each hyperparameter; later trials are darker."),
    ("intermediate", "Epochs", "The first objective by epoch; with folds and repeats, of each of them."),
)


def _figures(api: Service, study: tables.Study, *, several: bool) -> list[Figure]:
    """The study's plots, without those that it has not."""
    found = []
    for kind, heading, words in PLOTS:
        if several and kind == "history":
            continue
        try:
            found.append(Figure(kind, heading, words, figure_text(api.insights, study, kind)))
        except Invalid:
            continue
        except LibraryMissing:
            text = figure_text(api.insights, study, kind, method="ped_anova")
            found.append(Figure(kind, heading, words.replace("fANOVA", "PED-ANOVA"), text))
    return found


def _figures_of_best(api: Service, session: Session, study: tables.Study, best: dict[str, Any]) -> list[Figure]:
    """Learning curves of the best trial, and how it does on the validation part where its files say so."""
    trial = trials.find_trial(session, study.id, best["number"])
    epochs = [(row.epoch, loads(row.metrics)) for row in trials.metrics_of(session, trial, None)]
    found = []
    if epochs:
        text = json.dumps(curves_figure(epochs, trial.selected_epoch))
        words = "Loss and score by epoch, on training and validation data; the line marks the selected epoch."
        found.append(Figure("curves", f"Learning curves of trial {trial.number}", words, text))
    for file in artifacts.artifacts_of(session, [trial.id])[trial.id]:
        if file.name in ASSESSMENTS and file.size_bytes <= MOST_ASSESSMENT_BYTES:
            content = _read(api, file)
            if content is not None:
                heading, words, figure = assessment_figure(content)
                found.append(Figure("assessment", f"{heading} of trial {trial.number}", words, json.dumps(figure)))
    return found


def _read(api: Service, file: tables.Artifact) -> Any:
    """The JSON of an artifact; None where it is gone."""
    try:
        _, chunks = open_artifact(api.settings.resolved_artifact_url, file.path)
    except NotFound:
        return None
    return json.loads(b"".join(chunks))
