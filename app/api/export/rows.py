"""The trials of an export, batch by batch, and the columns of its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

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


T = TypeVar("T")


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

    def written(self, write: Callable[[list[str]], T]) -> Iterator[T]:
        """What `write` makes of all trials by number, a batch of JSON texts at a time.

        Clients take their time: between two batches no session stays open, and nothing is held but what was made last.
        """
        last: int | None = -1
        while last is not None:
            piece, last = self._piece(last, write)
            if piece is not None:
                yield piece

    def _piece(self, last: int, write: Callable[[list[str]], T]) -> tuple[T | None, int | None]:
        """What is made of the batch after trial `last`, and the batch's last trial where there are others after it."""
        apart = fixed_bytes(self.study)
        with self.database.read() as session:
            found = listing.trials_page(
                session, self.study.id, after=(last,), limit=BATCH, fixed_bytes=apart, budget=BATCH_BYTES
            )
            texts = trial_texts(session, self.study, found.trials)
        return write(texts) if texts else None, found.trials[-1].number if found.has_more else None

    def metrics(self) -> Iterator[str]:
        """The metrics of all trials that have any, as JSON texts."""
        last: int | None = -1
        while last is not None:
            with self.database.read() as session:
                texts, last = trials.results_after(session, self.study.id, last, BATCH)
            yield from texts


def error_words(trial: dict[str, Any]) -> str | None:
    """Why the trial failed, in one cell."""
    error = trial["error"]
    return None if error is None else f"{error['code']}: {error['message']}"
