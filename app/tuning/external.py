"""Proposals and verdicts for trials that outside programs train, in an API process.

The views of the studies that were asked for last are kept, each behind a lock. They are a cache alone: another process,
or this one after a restart, comes to the same proposals from the database, and replays what a trial has reported.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.external import Judgement, Watch
from app.domain.metrics import values_of
from app.domain.study import StudyDefinition
from app.domain.trial import Proposal, Reservation
from app.kept import Kept
from app.store.engine import Database
from app.store.external import HeldTrial, curve
from app.tuning.suggest import of_new_attempt
from app.tuning.view import StudyView

KEPT_BYTES = 500_000_000
"""What the views kept take, with their studies' finished trials; the one not used for longest goes first."""
NAMES_BYTES = 8_000_000
"""What is remembered of metrics' names."""
NAME_BYTES = 100
MOST_JUDGED = 2_000
"""Trials of a study that are remembered as judged; the one judged first is forgotten, and replayed if it goes on."""


@dataclass(slots=True)
class _Seen:
    """What was seen of a trial under one lease: its reports up to `epoch`."""

    token: str
    watch: Watch
    epoch: int = -1
    prune: bool = False


@dataclass(slots=True)
class _Open:
    """A study that programs ask for."""

    view: StudyView
    lock: threading.Lock = field(default_factory=threading.Lock)
    judged: dict[int, _Seen] = field(default_factory=dict)


class ExternalStudies:
    """The views of one API process. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._open: Kept[_Open] = Kept(KEPT_BYTES)
        self._names: Kept[frozenset[str]] = Kept(NAMES_BYTES)

    def ask(
        self, study_id: int, definition: StudyDefinition, reservations: Sequence[Reservation]
    ) -> list[Proposal | Exception]:
        """Hyperparameters for each reservation, or what the sampler raised."""
        study = self._study(study_id, definition)
        proposals: list[Proposal | Exception] = []
        with study.lock:
            study.view.sync()
            prunes = definition.pruner.name != "none"
            study.judged = {key: seen for key, seen in study.judged.items() if not prunes or study.view.holds(key)}
            for reservation in reservations:
                try:
                    proposals += study.view.ask([reservation])
                    self._begin(study, definition, reservation.trial_id, reservation.token)
                except Exception as error:  # noqa: BLE001 - whatever a sampler raises: the trial fails in words
                    proposals.append(error)
        self._open.resize(study_id, study.view.bytes)
        return proposals

    def judge(self, definition: StudyDefinition, trial: HeldTrial, up_to: int) -> Judgement:
        """Whether a trial goes on after the reports of its attempt up to epoch `up_to`, which are written.

        The same question has the same answer while this process lives. Only what it hasn't seen is read: all reports
        where the trial comes from another process, else the last one, however many came before. An epoch without a
        metric of every objective is not judged.
        """
        study = self._study(trial.study_id, definition)
        prunes = definition.pruner.name != "none"
        with study.lock:
            seen = study.judged.get(trial.trial_id)
            if seen is None or seen.token != trial.token or (prunes and not study.view.holds(trial.trial_id)):
                seen = self._begin(study, definition, trial.trial_id, trial.token)
                if prunes:
                    study.view.adopt(trial.trial_id, trial.number, trial.sampled, of_new_attempt(trial.attributes))
            if up_to > seen.epoch:
                with self._database.read() as session:
                    reported = curve(session, trial.trial_id, seen.epoch, up_to)
                if prunes and reported:
                    study.view.sync()
                for epoch, metrics in reported:
                    seen.epoch = epoch
                    seen.watch.see(metrics)
                    values = values_of(definition.objectives, metrics)
                    whole = len(values) == len(definition.objectives)
                    seen.prune = prunes and whole and study.view.report(trial.trial_id, epoch, values)
            judgement = Judgement(seen.prune, seen.watch.is_over)
        self._open.resize(trial.study_id, study.view.bytes)
        return judgement

    def metric_names(self, study_id: int) -> frozenset[str]:
        """Names of metrics that are known to be noted of the study."""
        return self._names.get(study_id) or frozenset()

    def know_metrics(self, study_id: int, names: Collection[str]) -> None:
        """Remember names of metrics that are noted of the study."""
        if not self.metric_names(study_id) >= set(names):
            self._names.put(study_id, frozenset(names), NAME_BYTES * len(names))

    @staticmethod
    def _begin(study: _Open, definition: StudyDefinition, trial_id: int, token: str) -> _Seen:
        """Begin to watch an attempt; the study is locked."""
        study.judged.pop(trial_id, None)
        seen = study.judged[trial_id] = _Seen(token, Watch(definition))
        if len(study.judged) > MOST_JUDGED:
            del study.judged[next(iter(study.judged))]
        return seen

    def attributes(self, study_id: int, trial_id: int) -> dict[str, Any] | None:
        """What sampler and pruner want remembered with a trial that is held here; None where it isn't."""
        study = self._open.get(study_id)
        if study is None or not study.view.holds(trial_id):
            return None
        return study.view.system_attributes(trial_id)

    def forget(self, study_id: int, trial_id: int) -> None:
        """Forget a trial that ended or was given back."""
        study = self._open.get(study_id)
        if study is not None:
            study.judged.pop(trial_id, None)
            study.view.forget(trial_id)

    def _study(self, study_id: int, definition: StudyDefinition) -> _Open:
        known = self._open.get(study_id)
        if known is not None:
            return known
        # A large space takes a while: nobody waits for it who asks for another study.
        made = _Open(StudyView(self._database, study_id, definition))
        with self._lock:
            study = self._open.get(study_id) or made
            if study is made:
                self._open.put(study_id, made, made.view.bytes)
            return study
