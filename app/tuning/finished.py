"""A study's finished trials, read once: they never change again."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial
from sqlalchemy import Row
from sqlalchemy.orm import Session

from app.domain.json import decode_number
from app.domain.stored import read_definition
from app.store import optuna as store
from app.tuning.trials import Space, managed_trial, plain_trial


class FinishedTrials:
    """The finished trials of one study by number. `refresh` reads only those that finished since it was last called."""

    def __init__(self, study: Row[Any]) -> None:
        self.public_id: str = study.public_id
        self._study_id: int = study.id
        definition = read_definition(study.definition) if study.definition else None
        self._space = None if definition is None else Space(definition)
        self.metric = store.PLAIN_METRIC if definition is None else definition.objectives[0].metric
        """The metric whose values by epoch are Optuna's intermediate values."""
        self.by_epoch = definition is None or definition.training.instances == 1
        """False where trials are compared by folds and repeats: what they report by epoch is no curve of theirs."""
        self._trials: dict[int, FrozenTrial] = {}
        self._seen = 0
        self._lock = threading.Lock()

    def read(self, row: Row[Any], reported: dict[int, float] | None = None) -> FrozenTrial:
        """The trial of a row of the study. `reported` are the values by epoch of one that hasn't finished."""
        if self._space is None:
            return plain_trial(row, reported)
        return managed_trial(row, self._space, reported)

    def refresh(self, session: Session) -> dict[int, FrozenTrial]:
        """All finished trials by number."""
        with self._lock:
            for row in store.finished_after(session, self._study_id, self._seen):
                self._trials[row.number] = self.read(row)
                self._seen = row.finish_seq
            return dict(self._trials)


def read_unfinished(session: Session, study: FinishedTrials, rows: Sequence[Row[Any]]) -> list[FrozenTrial]:
    """Trials that haven't finished, with what their current attempt reported."""
    if not study.by_epoch:
        return [study.read(row, {}) for row in rows]
    reported = store.intermediate_values(session, [(row.id, row.attempt) for row in rows], study.metric)
    return [study.read(row, {epoch: decode_number(value) for epoch, value in reported[row.id].items()}) for row in rows]
