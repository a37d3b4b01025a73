"""Scores on the test part: sealed while a study runs, told with its end, on the best trial alone.

A worker scores a model on the test part when it takes it aside as one that may turn out as the best. The scores go into
a column that nothing reads before the study is over: no sampler, no pruner, no answer of the service. What
`told_scores` doesn't tell is never told.
"""

from __future__ import annotations

import math
from typing import Any

from sqlalchemy import Row, bindparam, select, update

from app.domain.direction import losses
from app.domain.json import dumps, loads
from app.domain.objective import pareto_front
from app.store.locking import LockedStudy
from app.store.log import NewEvent
from app.store.tables import Artifact, Trial, table_of

MODEL_NAME = "model.keras"

_t = table_of(Trial)
_artifacts = table_of(Artifact)
_SEALED = select(*(_t.c[name] for name in ("id", "number", "objective_values", "metrics", "test_metrics"))).where(
    _t.c.study_id == bindparam("scored_study"), _t.c.test_metrics.is_not(None), _t.c.feasible
)
_TELL = update(_t).where(_t.c.id == bindparam("key")).values(metrics=bindparam("all_metrics"), test_metrics=None)
_DETAILS = select(_artifacts.c.details).where(
    _artifacts.c.trial_id == bindparam("key"), _artifacts.c.name == MODEL_NAME
)
_DESCRIBE = (
    update(_artifacts)
    .where(_artifacts.c.trial_id == bindparam("key"), _artifacts.c.name == MODEL_NAME)
    .values(details=bindparam("all_details"))
)


def told_scores(study: LockedStudy) -> list[NewEvent]:
    """Write the scores of the best trial, or of all on the Pareto front, to its metrics and its model's details."""
    events = []
    for row in sorted(_best_sealed(study), key=lambda row: row.number):
        scores = loads(row.test_metrics)
        metrics = loads(row.metrics or "{}") | scores
        study.connection.execute(_TELL, {"key": row.id, "all_metrics": dumps(metrics)})
        details = study.connection.execute(_DETAILS, {"key": row.id}).scalar()
        if details is not None:
            described = dumps(loads(details) | {"test_metrics": scores})
            study.connection.execute(_DESCRIBE, {"key": row.id, "all_details": described})
        events.append(NewEvent("trial.tested", {"metrics": scores}, trial=row.number))
    return events


def _best_sealed(study: LockedStudy) -> list[Row[Any]]:
    directions = loads(study.directions)
    if len(directions) == 1:
        if study.best_number is None:
            return []
        query = _SEALED.where(_t.c.number == study.best_number)
        return list(study.connection.execute(query, {"scored_study": study.id}))
    points: list[tuple[tuple[float, ...], Row[Any]]] = []
    for row in study.connection.execute(_SEALED, {"scored_study": study.id}):
        point = losses(map(float, loads(row.objective_values)), directions)
        if not any(map(math.isnan, point)):
            points.append((point, row))
    front = set(pareto_front([point for point, _ in points]))
    return [row for point, row in points if point in front]
