"""A study as it stands, as an Optuna study that can be read and nothing else: for importances and figures."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from app.domain.json import loads
from app.domain.stored import read_definition
from app.domain.study import StudyDefinition
from app.store import optuna as store
from app.store.engine import Database
from app.tuning.bound import BoundStorage
from app.tuning.distributions import distributions
from app.tuning.finished import FinishedTrials, read_unfinished

KEPT_STUDIES = 8
"""Studies whose finished trials stay in memory: 20,000 trials of ten epochs take about 60 MB."""
METRIC_NAMES = "study:metric_names"
"""Optuna's key of the study attribute that names the objectives."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The trials of a study at one moment, by number: finished ones, and running ones with their reports so far."""

    definition: StudyDefinition
    directions: tuple[str, ...]
    metrics: tuple[str, ...]
    trials: tuple[FrozenTrial, ...]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The searched hyperparameters, parents first, then by name."""
        return dict(distributions(self.definition))

    @property
    def complete(self) -> list[FrozenTrial]:
        """The COMPLETE trials by number."""
        return [trial for trial in self.trials if trial.state == TrialState.COMPLETE]

    def study(self, metrics: Sequence[str], trials: Sequence[FrozenTrial] | None = None) -> Study:
        """An Optuna study with these objectives alone, and these trials (all where None is given).

        `metrics` are objectives of the study.
        """
        places = [self.metrics.index(metric) for metric in metrics]
        directions = [StudyDirection[self.directions[place].upper()] for place in places]
        storage = BoundStorage(0, self.definition.name, directions, _refuse_claim)
        storage.study_attributes = {METRIC_NAMES: list(metrics)}
        chosen = self.trials if trials is None else trials
        projected = chosen if places == list(range(len(self.metrics))) else [_projected(t, places) for t in chosen]
        storage.finished = sorted(projected, key=lambda trial: trial.number)
        return Study(self.definition.name, storage)


class Snapshots:
    """Snapshots of studies; finished trials are read once. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._finished: OrderedDict[int, FinishedTrials] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, study_id: int) -> Snapshot:
        """The study with this row id, as it is now.

        Raises:
            LookupError: it is gone, or no study of the service.
        """
        with self._database.read() as session:
            row = store.find_study(session, study_id)
            if row is None or row.definition is None:
                raise LookupError(f"Expected the row id of a study of the service. Received: {study_id}")
            finished = self._of(study_id, row)
            # Before the finished ones: a trial that finishes in between is seen twice instead of never.
            live = [r for r in store.unfinished(session, study_id) if r.state == TrialState.RUNNING.name]
            by_number = {trial.number: trial for trial in read_unfinished(session, finished, live)}
            by_number |= finished.refresh(session)
        definition = read_definition(row.definition)
        return Snapshot(
            definition=definition,
            directions=tuple(loads(row.directions)),
            metrics=tuple(objective.metric for objective in definition.objectives),
            trials=tuple(by_number[number] for number in sorted(by_number)),
        )

    def _of(self, study_id: int, row: object) -> FinishedTrials:
        with self._lock:
            found = self._finished.pop(study_id, None) or FinishedTrials(row)  # type: ignore[arg-type]
            self._finished[study_id] = found
            while len(self._finished) > KEPT_STUDIES:
                self._finished.popitem(last=False)
            return found


def _projected(trial: FrozenTrial, places: Sequence[int]) -> FrozenTrial:
    """The trial with some of its values alone."""
    if trial.values is None:
        return trial
    changed = copy.copy(trial)
    changed._values = [trial.values[place] for place in places]
    return changed


def _refuse_claim(key: str, value: object) -> object:
    raise TypeError(f"Expected a study that is only read. Received an attribute to set: {key}={value!r}")
