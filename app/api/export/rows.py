"""The trials of an export, batch by batch, and the columns of its tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.api.trial_texts import fixed_bytes, trial_texts
from app.domain.json import loads
from app.domain.study import StudyDefinition
from app.store import listing, tables, trials
from app.store.engine import Database

BATCH = 500
"""Trials that an export reads at once."""
BATCH_BYTES = 4_000_000
"""And what they take at most; a single one may be longer."""
LEADING = ("number", "state", "reason", "feasible", "attempt")
TRAILING = (
    "selected_epoch",
    "epochs",
    "worker_id",
    "device",
    "created_at",
    "started_at",
    "finished_at",
    "duration_seconds",
    "parent",
    "first_epoch",
    "reused_from",
)


@dataclass(frozen=True)
class Export:
    """A study to export."""

    database: Database
    study: tables.Study
    definition: StudyDefinition

    @cached_property
    def objectives(self) -> list[str]:
        """The objectives' metrics."""
        metrics: list[str] = loads(self.study.objective_metrics)
        return metrics

    def texts(self) -> Iterator[list[str]]:
        """All trials by number as JSON texts; no session stays open between batches."""
        last, apart = -1, fixed_bytes(self.study)
        while True:
            with self.database.read() as session:
                found = listing.trials_page(
                    session, self.study.id, after=(last,), limit=BATCH, fixed_bytes=apart, budget=BATCH_BYTES
                )
                texts = trial_texts(session, self.study, found.trials)
            if texts:
                yield texts
            if not found.has_more:
                return
            last = found.trials[-1].number

    def metrics(self) -> Iterator[str]:
        """The metrics of all trials that have any, as JSON texts."""
        last: int | None = -1
        while last is not None:
            with self.database.read() as session:
                texts, last = trials.results_after(session, self.study.id, last, BATCH)
            yield from texts

    def trials(self) -> Iterator[list[dict[str, Any]]]:
        """All trials by number, as in the API's answers."""
        for texts in self.texts():
            yield [loads(text) for text in texts]


def error_words(trial: dict[str, Any]) -> str | None:
    """Why the trial failed, in one cell."""
    error = trial["error"]
    return None if error is None else f"{error['code']}: {error['message']}"
