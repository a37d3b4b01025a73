"""What a report tells of a study, read at one moment."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.api.deps import Service
from app.api.files import open_artifact
from app.api.report.figures import assessment_figure, curves_figure
from app.api.trial_texts import trial_texts
from app.api.views import study_now
from app.domain.direction import maximizes
from app.domain.json import loads
from app.domain.study import StudyDefinition
from app.domain.trial import TrialState
from app.errors import FettleError, Invalid, NotFound
from app.store import listing, tables, trials
from app.store.insight import reports
from app.store.studies import find_study
from app.tuning.answers import FAULT, has_forests
from app.tuning.insight import best_trials
from app.tuning.questions import Answer, Kind, Question, Wanted, check

log = logging.getLogger("fettle.report")

SHOWN_TRIALS = 20
"""Trials that the report's tables list."""
ASSESSMENTS = {"confusion_matrix.json": "Confusion matrix", "residuals.json": "Predictions"}
MOST_ASSESSMENT_BYTES = 5_000_000
MOST_EPOCHS = 1_000
"""Epochs of the best trial's curves, evenly."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A Plotly figure as JSON text, with a heading and a sentence about it; `reason` says why it is empty."""

    name: str
    heading: str
    words: str
    text: str
    reason: str | None = None


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


def gathered(api: Service, project: str, study_id: str, plots: Mapping[Plot, Answer]) -> Content:
    """Read a study for its report, with its plots as they were answered.

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
        figures_of_best = _of_best(api, session, study, best[0]) if best and not several else []
    return Content(
        study=shown,
        best=best[:SHOWN_TRIALS],
        top=top,
        failed=failed,
        failures=failures,
        figures=[*(_figure(plot, answer) for plot, answer in plots.items()), *figures_of_best],
        at=time.time(),
    )


def _best(session: Session, study: tables.Study) -> list[dict[str, Any]]:
    """The best trial, or the Pareto front by its first objective."""
    directions = loads(study.directions)
    if len(directions) == 1:
        numbers = [] if study.best_number is None else [study.best_number]
    else:
        front = best_trials(trials.objective_values(session, study.id), directions)
        front.sort(key=lambda trial: (trial.values or (0.0,))[0], reverse=maximizes(directions[0]))
        numbers = [trial.number for trial in front[:SHOWN_TRIALS]]
    rows = {row.number: row for row in trials.trials_by_number(session, study.id, numbers)}
    return [loads(text) for text in trial_texts(session, study, [rows[n] for n in numbers if n in rows])]


def _top(session: Session, study: tables.Study) -> list[dict[str, Any]]:
    sort = "-value" if maximizes(loads(study.directions)[0]) else "value"
    return _listed(session, study, states=[TrialState.COMPLETE], sort=sort)


def _listed(session: Session, study: tables.Study, *, states: list[TrialState], sort: str) -> list[dict[str, Any]]:
    rows = listing.list_trials(session, study.id, states=states, sort=sort, limit=SHOWN_TRIALS)
    return [loads(text) for text in trial_texts(session, study, rows)]


# Plots of all trials


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of the report, by its kind."""

    kind: Kind
    heading: str
    words: str


PLOTS = (
    Plot("history", "History", "The objective of each trial, and the best so far."),
    Plot("pareto", "Pareto front", "Trials that no other one beats in every objective, and those that some do."),
    Plot("importances", "Importances", "How much of the differences between trials each hyperparameter explains ({})."),
    Plot("parallel", "Parallel coordinates", "Each line is a trial; the darkest are the best."),
    Plot("slice", "Slices", "The objective over each hyperparameter; later trials are darker."),
    Plot("intermediate", "Epochs", "The first objective by epoch; with folds and repeats, of each of them."),
)


def questions_of(definition: StudyDefinition) -> dict[Plot, Question]:
    """What is asked for a report, by plot: those that a study of this definition has."""
    found = {}
    method, name = ("fanova", "fANOVA") if has_forests() else ("ped_anova", "PED-ANOVA")
    for plot in PLOTS:
        wanted = Wanted(method=method) if plot.kind == "importances" else Wanted()  # type: ignore[arg-type]
        if plot.kind == "history" and len(definition.objectives) > 1:
            continue
        try:
            check(definition, plot.kind, wanted)
        except Invalid:
            continue
        found[Plot(plot.kind, plot.heading, plot.words.format(name))] = Question(plot.kind, wanted)
    return found


def _figure(plot: Plot, answer: Answer) -> Figure:
    return Figure(plot.kind, plot.heading, " ".join([plot.words, *answer.notes]), answer.text, answer.reason)


# Figures of the best trial


def _of_best(api: Service, session: Session, study: tables.Study, best: dict[str, Any]) -> list[Figure]:
    """Learning curves of the best trial, and how it does on the validation part where its files say so."""
    trial = trials.find_trial(session, study.id, best["number"])
    found = []
    curves = _part("curves", f"Learning curves of trial {trial.number}", lambda: _curves(session, trial))
    if curves is not None:
        found.append(curves)
    for file in trials.artifacts_of(session, [trial.id])[trial.id]:
        if file.name in ASSESSMENTS and file.size_bytes <= MOST_ASSESSMENT_BYTES:
            heading = f"{ASSESSMENTS[file.name]} of trial {trial.number}"
            assessment = _part("assessment", heading, partial(_assessment, api, file))
            if assessment is not None:
                found.append(assessment)
    return found


def _part(name: str, heading: str, make: Callable[[], tuple[str, Any] | None]) -> Figure | None:
    """A figure of a sentence about it and its JSON values; one that fails says so, and the rest of the page stands."""
    try:
        made = make()
    except (FettleError, SQLAlchemyError):
        raise
    except Exception:
        log.exception("a part of a report failed: %s", heading)
        return Figure(name, heading, "", "", FAULT)
    return None if made is None else Figure(name, heading, made[0], json.dumps(made[1], allow_nan=False))


def _curves(session: Session, trial: tables.Trial) -> tuple[str, Any] | None:
    epochs = [(epoch, loads(text)) for epoch, text in reports(session, trial.id, trial.attempt, MOST_EPOCHS)]
    if not epochs:
        return None
    words = "Loss and score by epoch, on training and validation data; the line marks the selected epoch."
    return words, curves_figure(epochs, trial.selected_epoch)


def _assessment(api: Service, file: tables.Artifact) -> tuple[str, Any] | None:
    """A sentence and a figure of an artifact; None where it is gone."""
    try:
        _, chunks = open_artifact(api.settings.resolved_artifact_url, file.path)
    except NotFound:
        return None
    return assessment_figure(json.loads(b"".join(chunks)))
