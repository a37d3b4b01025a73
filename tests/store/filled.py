"""Studies with a past: finished trials with their metrics and events, written by few large statements."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from app.domain.json import dumps
from app.store.engine import Database
from app.store.locking import LockedStudy, lock_study, tell
from app.store.log import NewEvent
from app.store.query import Rows
from app.store.tables import Metric, Trial, table_of

AT_ONCE = 500
"""Trials a transaction."""
METRICS = Rows(table_of(Metric), "trial_id", "attempt", "epoch", "metrics", "at")


def fill(database: Database, study_id: int, count: int, names: Sequence[str] = ("x0",), epochs: int = 10) -> None:
    """Add `count` COMPLETE trials to a study as if they had run one after the other: their parameters `names` are drawn
    from [-1, 1], the value is the sum of their squares; counters, events and metrics say the same.
    """
    draws = random.Random(study_id)
    while count > 0:
        with database.write() as session:
            _add(session, lock_study(session, study_id), min(count, AT_ONCE), names, epochs, draws)
        count -= AT_ONCE


def _add(
    session: Session, study: LockedStudy, count: int, names: Sequence[str], epochs: int, draws: random.Random
) -> None:
    first = study.next_number
    rows = [_row(study, first + i, names, epochs, draws) for i in range(count)]
    session.execute(insert(Trial), rows)
    query = select(Trial.number, Trial.id).where(Trial.study_id == study.id, Trial.number >= first)
    ids = {row.number: row.id for row in session.execute(query)}
    events: list[NewEvent] = []
    metrics = []
    for row in rows:
        number, value = row["number"], row["value"]
        events.append(NewEvent("trial.started", {"attempt": 1}, trial=number))
        for epoch in range(epochs):
            metrics.append((ids[number], 1, epoch, row["metrics"], study.at))
            fields = {"attempt": 1, "epoch": epoch, "metrics": {"value": value}}
            events.append(NewEvent("trial.metrics", fields, trial=number))
        fields = {"state": "COMPLETE", "reason": None, "feasible": True, "values": {"value": value}}
        events.append(NewEvent("trial.finished", {**fields, "duration_seconds": 0.01}, trial=number))
        if study.best_value is None or value < study.best_value:
            study.best_number, study.best_value = number, value
    METRICS.add(study.connection, metrics)
    study.next_number += count
    study.sampled_count += count
    study.complete += count
    study.finished_count += count
    study.started_at = study.started_at or study.at
    tell(study, events)


def _row(study: LockedStudy, number: int, names: Sequence[str], epochs: int, draws: random.Random) -> dict[str, Any]:
    values = {name: draws.uniform(-1.0, 1.0) for name in names}
    value = sum(x * x for x in values.values())
    return {
        "study_id": study.id,
        "number": number,
        "ordinal": number,
        "state": "COMPLETE",
        "feasible": True,
        "attempt": 1,
        "hyperparameters": dumps(values),
        "sampled": dumps(values),
        "objective_values": dumps([value]),
        "value": value,
        "metrics": dumps({"value": value}),
        "selected_epoch": epochs - 1,
        "epochs": epochs,
        "curve": dumps([[epoch, value] for epoch in range(epochs)]),
        "finish_token": secrets.token_hex(16),
        "worker_id": "w0",
        "device": "cpu",
        "finish_seq": number + 1,
        "created_at": study.at,
        "started_at": study.at,
        "finished_at": study.at,
    }
