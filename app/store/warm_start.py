"""Trials of earlier studies for a new study's sampler: found when it is made, and kept with it as they were then."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from sqlalchemy import Result, Row, insert, select
from sqlalchemy.orm import Session

from app.domain.json import decode_number, dumps, loads
from app.domain.trial import TrialState
from app.domain.warm_start import EarlierTrial
from app.store.tables import Study, StudyAttribute, Trial

SCOPE = "warm"
"""Of the study attributes that hold earlier trials: Optuna and its users see other scopes alone."""
READ_AT_ONCE = 20
"""Trials of an earlier study that are in memory at once."""


def find_source(session: Session, project: str, reference: str) -> Study | None:
    """The service's study of an id, else of a name, in the project."""
    for column in (Study.public_id, Study.name):
        query = select(Study).where(Study.project == project, column == reference, Study.managed)
        found = session.scalars(query).one_or_none()
        if found is not None:
            return found
    return None


def complete_trials(session: Session, study_id: int, limit: int) -> Generator[Row[Any]]:
    """The last COMPLETE trials of a study, the last one first: number, hyperparameters, varied, objective_values and
    metrics.

    They are read as they are taken: each may be as large as a definition.
    """
    query = (
        select(Trial.number, Trial.hyperparameters, Trial.varied, Trial.objective_values, Trial.metrics)
        .where(Trial.study_id == study_id, Trial.state == TrialState.COMPLETE)
        .order_by(Trial.number.desc())
        .limit(limit)
    )
    result: Result[Any] = session.execute(query.execution_options(yield_per=READ_AT_ONCE))
    try:
        yield from result
    finally:
        result.close()  # whoever has enough of them ends the cursor


def earlier_texts(trials: Sequence[EarlierTrial]) -> list[str]:
    """Earlier trials as they are kept."""
    return [
        dumps(
            {
                "study": trial.study,
                "number": trial.number,
                "sampled": trial.sampled,
                "values": trial.values,
                "violations": trial.violations,
            }
        )
        for trial in trials
    ]


def keep_earlier(session: Session, study_id: int, texts: Sequence[str]) -> None:
    """Keep earlier trials with a new study, whatever becomes of the studies that they are from."""
    rows = [
        {"study_id": study_id, "scope": SCOPE, "key": f"{place:06d}", "value": text} for place, text in enumerate(texts)
    ]
    if rows:
        session.execute(insert(StudyAttribute), rows)


def earlier_trials(session: Session, study_id: int) -> list[EarlierTrial]:
    """The earlier trials that are kept with a study, in their order."""
    query = select(StudyAttribute.value).where(StudyAttribute.study_id == study_id, StudyAttribute.scope == SCOPE)
    found = [loads(text) for text in session.scalars(query.order_by(StudyAttribute.key))]
    return [
        EarlierTrial(
            one["study"],
            one["number"],
            one["sampled"],
            tuple(map(decode_number, one["values"])),
            tuple(map(decode_number, one["violations"])),
        )
        for one in found
    ]
