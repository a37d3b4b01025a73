"""The earlier studies that a definition names: found, compared with it, and read once."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from app.api.problems import invalid_request
from app.api.views import definition_of
from app.domain.effort import Meter, unmetered
from app.domain.families import Scalar
from app.domain.fixed import whole
from app.domain.json import decode_number, loads
from app.domain.objective import violations
from app.domain.study import StudyDefinition, WarmStart
from app.domain.warm_start import MOST_BYTES, MOST_TRIALS, Drawable, EarlierTrial, why_other_results
from app.errors import FieldError, InvalidStudy
from app.store import tables
from app.store.warm_start import complete_trials, find_source

CONDITION_BYTES = 10
"""What looking at a condition takes is what reading so much of a trial does."""


@dataclass(frozen=True, slots=True)
class WarmStarted:
    """A definition that names earlier studies by id, the trials that its sampler learns from, and warnings."""

    definition: StudyDefinition
    trials: tuple[EarlierTrial, ...] = ()
    warnings: tuple[str, ...] = ()


def warm_started(
    session: Session, project: str, definition: StudyDefinition, meter: Meter | None = None
) -> WarmStarted:
    """What a checked definition learns from the studies that it names, as they are now.

    Raises:
        InvalidStudy: a study that isn't there, is named twice, or has other objectives.
        Abandoned: nobody waits for it.
    """
    if not definition.warm_start.studies:
        return WarmStarted(definition)
    sources = _sources(session, project, definition)
    trials: list[EarlierTrial] = []
    warnings: list[str] = []
    drawable = Drawable(definition)
    for source in sources:
        most_bytes, own_bytes = MOST_BYTES // len(sources), CONDITION_BYTES * drawable.conditions
        rows = _Rows(complete_trials(session, source.id, MOST_TRIALS), most_bytes, own_bytes, meter or unmetered())
        found = list(_fitting(definition, drawable, source, rows))[::-1]
        trials += found
        told = f"warm_start: {len(found)} of {rows.count} complete trials of {source.name!r} fit and are learned from"
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


class _Rows:
    """The last trials of a study, as many of them as fit into `most_bytes`; `count` is how many have come.

    Each counts as its texts and `own_bytes` for what is looked at.
    """

    def __init__(self, rows: Generator[Row[Any]], most_bytes: int, own_bytes: int, meter: Meter) -> None:
        self._rows = rows
        self._left, self._own = most_bytes, own_bytes
        self._meter = meter
        self.count = 0

    def __iter__(self) -> Iterator[Row[Any]]:
        with closing(self._rows) as rows:
            for row in rows:
                self._meter.spend(0)  # its bytes bound it already: this looks whether the client has left
                self._left -= self._own + len(row.hyperparameters or row.varied or "") + len(row.metrics or "")
                if self._left < 0 and self.count:
                    return
                self.count += 1
                yield row


def _fitting(
    definition: StudyDefinition, drawable: Drawable, source: tables.Study, rows: _Rows
) -> Iterator[EarlierTrial]:
    fixed: Mapping[str, Scalar] | None = None
    for row in rows:
        kept = loads(row.hyperparameters or row.varied or "{}")
        if row.varied is not None:
            fixed = definition_of(source).fixed if fixed is None else fixed
            kept = whole(fixed, kept)
        sampled = drawable.sampled(kept)
        if sampled is None or row.objective_values is None:
            continue
        metrics = {name: decode_number(value) for name, value in loads(row.metrics or "{}").items()}
        values = tuple(map(decode_number, loads(row.objective_values)))
        broken = violations(definition.constraints, metrics)
        yield EarlierTrial(source.public_id, row.number, sampled, values, broken)
