"""The earlier studies that a definition names: found, compared with it, and read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from app.api.problems import invalid_request
from app.api.views import definition_of
from app.domain.constraints import violations
from app.domain.fixed import whole
from app.domain.json import decode_number, loads
from app.domain.study import StudyDefinition, WarmStart
from app.domain.warm_start import MOST_TRIALS, EarlierTrial, sampled_by, why_other_results
from app.errors import FieldError, InvalidStudy
from app.store import tables
from app.store.warm_start import complete_trials, find_source


@dataclass(frozen=True, slots=True)
class WarmStarted:
    """A definition that names earlier studies by id, the trials that its sampler learns from, and warnings."""

    definition: StudyDefinition
    trials: tuple[EarlierTrial, ...] = ()
    warnings: tuple[str, ...] = ()


def warm_started(session: Session, project: str, definition: StudyDefinition) -> WarmStarted:
    """What a checked definition learns from the studies that it names, as they are now.

    Raises:
        InvalidStudy: a study that isn't there, is named twice, or has other objectives.
    """
    if not definition.warm_start.studies:
        return WarmStarted(definition)
    sources = _sources(session, project, definition)
    trials: list[EarlierTrial] = []
    warnings: list[str] = []
    for source in sources:
        rows = complete_trials(session, source.id, MOST_TRIALS)
        found = _fitting(definition, source, rows)
        trials += found
        told = f"warm_start: {len(found)} of {len(rows)} complete trials of {source.name!r} fit and are learned from"
        differences = why_other_results(definition, definition_of(source))
        warnings.append(f"{told}; {', '.join(differences)}." if differences else f"{told}.")
    ids = WarmStart(studies=[source.public_id for source in sources])
    return WarmStarted(definition.model_copy(update={"warm_start": ids}), tuple(trials), tuple(warnings))


def _sources(session: Session, project: str, definition: StudyDefinition) -> list[tables.Study]:
    found: list[tables.Study] = []
    errors = []
    for i, reference in enumerate(definition.warm_start.studies):
        source = find_source(session, project, reference)
        problem = _problem(definition, source, found)
        if source is None or problem is not None:
            errors.append(FieldError(("warm_start", "studies", i), f"{problem} Received: {reference[:200]!r}"))
        else:
            found.append(source)
    if errors:
        raise invalid_request(errors, InvalidStudy)
    return found


def _problem(definition: StudyDefinition, source: tables.Study | None, others: Sequence[tables.Study]) -> str | None:
    if source is None:
        return "Expected the id or the name of a study of this project."
    if any(other.id == source.id for other in others):
        return "Expected studies that differ."
    wanted = [(objective.metric, objective.direction) for objective in definition.objectives]
    given = list(zip(loads(source.objective_metrics), loads(source.directions), strict=True))
    if given != wanted:
        words = ", ".join(f"{metric} ({direction})" for metric, direction in wanted)
        others_words = ", ".join(f"{metric} ({direction})" for metric, direction in given)
        return f"Expected a study with the same objectives, {words}: it has {others_words}."
    return None


def _fitting(definition: StudyDefinition, source: tables.Study, rows: Sequence[Row[Any]]) -> list[EarlierTrial]:
    found = []
    fixed = definition_of(source).fixed if any(row.varied is not None for row in rows) else {}
    for row in rows:
        sampled = sampled_by(definition, whole(fixed, loads(row.hyperparameters or row.varied or "{}")))
        if sampled is None or row.objective_values is None:
            continue
        metrics = {name: decode_number(value) for name, value in loads(row.metrics or "{}").items()}
        values = tuple(map(decode_number, loads(row.objective_values)))
        broken = violations(definition.constraints, metrics)
        found.append(EarlierTrial(source.public_id, row.number, sampled, values, broken))
    return found
