"""A study as it stands, for importances and figures: little of every trial, and more of those that are looked at."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.domain.direction import maximizes
from app.domain.families import Scalar
from app.domain.json import decode_number, loads
from app.domain.space import Categorical, Float, Int, resolution_order
from app.domain.stored import read_definition
from app.domain.study import StudyDefinition
from app.domain.trial import TrialState
from app.store import insight as store
from app.store.engine import Database
from app.store.insight import Span
from app.store.log import clock
from app.store.optuna import find_study
from app.tuning.thinning import evenly

KEPT_BYTES = 64_000_000
"""Memory that all studies' finished trials together may stay in, as estimated: some 250,000 trials."""
TRIAL_BYTES = 200
VALUE_BYTES = 32
"""What an outline takes, and each of its objectives (measured: 168 and 32 bytes)."""


@dataclass(frozen=True, slots=True)
class SeenTrial:
    """What every figure needs of a trial. `feasible`: no constraint is known to be broken; `reported`: has a curve."""

    id: int
    number: int
    state: str
    attempt: int
    feasible: bool
    reported: bool
    values: tuple[float, ...] | None


Valued = tuple[SeenTrial, float]
"""A COMPLETE trial, and one of its objectives: a finite number."""
Drawn = float | int | None
"""What a trial drew of a hyperparameter: a number, a choice's place among the choices, or nothing."""
Curve = list[tuple[int, float]]
"""A trial's first objective by epoch."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The trials of a study at one moment, by number: finished ones, and running ones."""

    definition: StudyDefinition
    directions: tuple[str, ...]
    metrics: tuple[str, ...]
    trials: tuple[SeenTrial, ...]
    complete: tuple[SeenTrial, ...]
    """The COMPLETE ones among them."""
    study_id: int
    database: Database

    @property
    def parameters(self) -> dict[str, Float | Int | Categorical]:
        """The searched hyperparameters, parents first, then by name."""
        searched = self.definition.searched
        return {name: searched[name] for name in resolution_order(searched, self.definition.fixed)}

    @property
    def has_curves(self) -> bool:
        """Whether running trials report by epoch what finished ones are compared by: not with folds and repeats."""
        return self.definition.training.instances == 1

    def maximizes(self, metric: str) -> bool:
        """Whether more of an objective is better."""
        return maximizes(self.directions[self.metrics.index(metric)])

    def valued(self, metric: str) -> list[Valued]:
        """The COMPLETE trials whose value of an objective is a finite number, by number."""
        place = self.metrics.index(metric)
        found = [(trial, trial.values[place]) for trial in self.complete if trial.values is not None]
        return [(trial, value) for trial, value in found if math.isfinite(value)]

    def drawn(self, trials: Sequence[SeenTrial], names: Sequence[str]) -> dict[str, list[Drawn]]:
        """What these trials drew of the named hyperparameters, in their order; None where a trial didn't draw it."""
        place = {trial.id: i for i, trial in enumerate(trials)}
        parameters = self.parameters
        places = {name: _places(parameters[name]) for name in names}
        found: dict[str, list[Drawn]] = {name: [None] * len(trials) for name in names}
        with self.database.read() as session:
            for trial_id, text in store.sampled_texts(session, list(place)):
                sampled = loads(text)
                for name in names:
                    if name in sampled:
                        found[name][place[trial_id]] = places[name](sampled[name])
        return found

    def curves(self, trials: Sequence[SeenTrial], most: int) -> list[Curve]:
        """The curves of these trials, in their order, each thinned to about `most` points."""
        found: dict[int, Curve] = {}
        with self.database.read() as session:
            ended = [trial.id for trial in trials if trial.state != TrialState.RUNNING]
            for trial_id, text in store.curve_texts(session, ended):
                found[trial_id] = [(entry[0], decode_number(entry[1])) for entry in evenly(loads(text), most)]
            for trial in trials:
                if trial.state == TrialState.RUNNING:
                    found[trial.id] = self._running_curve(session, trial, most)
        return [found.get(trial.id, []) for trial in trials]

    def _running_curve(self, session: Session, trial: SeenTrial, most: int) -> Curve:
        metric, curve = self.metrics[0], []
        for epoch, text in store.reports(session, trial.id, trial.attempt, most):
            metrics = loads(text)
            if metric in metrics:
                curve.append((epoch, decode_number(metrics[metric])))
        return curve

    def spans(self, most: int) -> tuple[list[Span], float]:
        """When the last trials that were started ran, by number; and the time now, by the database's clock."""
        with self.database.read() as session:
            return store.spans(session, self.study_id, most), clock(session)


class Snapshots:
    """Snapshots of studies; outlines of finished trials are read once. Thread-safe."""

    def __init__(self, database: Database, kept_bytes: int = KEPT_BYTES) -> None:
        self._database = database
        self._kept_bytes = kept_bytes
        self._finished: OrderedDict[int, _Finished] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def kept_bytes(self) -> int:
        """What is kept now, as estimated."""
        with self._lock:
            return sum(found.bytes for found in self._finished.values())

    def take(self, study_id: int) -> Snapshot:
        """The study with this row id, as it is now.

        Raises:
            LookupError: it is gone, or no study of the service.
        """
        finished = self._of(study_id)
        with self._database.read() as session:
            row = find_study(session, study_id)
            if row is None or row.definition is None:
                raise LookupError(f"Expected the row id of a study of the service. Received: {study_id}")
            # Before the finished ones: a trial that finishes in between is seen twice instead of never.
            by_number = {trial.number: trial for trial in map(_outline, store.outlines_running(session, study_id))}
            by_number |= finished.refresh(session)
        self._keep(study_id, finished)
        definition = read_definition(row.definition)
        trials = tuple(by_number[number] for number in sorted(by_number))
        return Snapshot(
            definition=definition,
            directions=tuple(loads(row.directions)),
            metrics=tuple(objective.metric for objective in definition.objectives),
            trials=trials,
            complete=tuple(trial for trial in trials if trial.state == TrialState.COMPLETE),
            study_id=study_id,
            database=self._database,
        )

    def _of(self, study_id: int) -> _Finished:
        with self._lock:
            return self._finished.get(study_id) or _Finished(study_id)

    def _keep(self, study_id: int, finished: _Finished) -> None:
        """Keep a study's trials, in place of those that nobody asked about for the longest time."""
        with self._lock:
            self._finished[study_id] = finished
            self._finished.move_to_end(study_id)
            kept = sum(found.bytes for found in self._finished.values())
            while kept > self._kept_bytes and self._finished:
                kept -= self._finished.popitem(last=False)[1].bytes


class _Finished:
    """The finished trials of one study by number. They never change again."""

    def __init__(self, study_id: int) -> None:
        self._study_id = study_id
        self._trials: dict[int, SeenTrial] = {}
        self._seen = 0
        self._lock = threading.Lock()
        self.bytes = 0

    def refresh(self, session: Session) -> dict[int, SeenTrial]:
        """All of them, those that finished since the last call among them."""
        with self._lock:
            for row in store.outlines_after(session, self._study_id, self._seen):
                trial = self._trials[row.number] = _outline(row)
                self._seen = row.finish_seq
                self.bytes += TRIAL_BYTES + VALUE_BYTES * len(trial.values or ())
            return dict(self._trials)


def _outline(row: Any) -> SeenTrial:
    values = None if row.objective_values is None else tuple(map(decode_number, loads(row.objective_values)))
    reported = row.epochs > 0 if row.state == TrialState.RUNNING else bool(row.has_curve)
    return SeenTrial(row.id, row.number, row.state, row.attempt, row.feasible is not False, reported, values)


def _places(parameter: Float | Int | Categorical) -> Callable[[Scalar], Drawn]:
    """What a drawn value is to a figure; None for values that were not declared (enqueued ones)."""
    if isinstance(parameter, Categorical):
        places = {(choice, isinstance(choice, bool)): i for i, choice in enumerate(parameter.choices)}
        return lambda value: places.get((value, isinstance(value, bool)))
    return lambda value: value if parameter.contains(value) and not isinstance(value, str) else None
