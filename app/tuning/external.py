"""Proposals and verdicts for trials that outside programs train, in an API process.

The views of the studies that were asked for last are kept, each behind a lock. They are a cache alone: another process,
or this one after a restart, comes to the same proposals from the database, and replays what a trial has reported.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.metrics import values_of
from app.domain.study import StudyDefinition
from app.domain.trial import Proposal, Reservation
from app.store.engine import Database
from app.store.external import Curve, HeldTrial
from app.tuning.suggest import of_new_attempt
from app.tuning.view import StudyView

KEPT_STUDIES = 16
"""Views kept, each with its study's finished trials; the one not used for longest goes first."""


@dataclass(slots=True)
class _Seen:
    """What was judged of a trial under one lease."""

    token: str
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
        self._open: OrderedDict[int, _Open] = OrderedDict()

    def ask(
        self, study_id: int, definition: StudyDefinition, reservations: Sequence[Reservation]
    ) -> list[Proposal | Exception]:
        """Hyperparameters for each reservation, or what the sampler raised."""
        study = self._study(study_id, definition)
        proposals: list[Proposal | Exception] = []
        with study.lock:
            study.view.sync()
            study.judged = {key: seen for key, seen in study.judged.items() if study.view.holds(key)}
            for reservation in reservations:
                try:
                    proposals += study.view.ask([reservation])
                    study.judged[reservation.trial_id] = _Seen(reservation.token)
                except Exception as error:  # noqa: BLE001 - whatever a sampler raises: the trial fails in words
                    proposals.append(error)
        return proposals

    def judge(self, definition: StudyDefinition, trial: HeldTrial, curve: Curve) -> bool:
        """Whether to prune a trial after the last epoch of `curve`, which has all that its attempt has reported.

        The same question has the same answer while this process lives. An epoch without a metric of every
        objective is not judged.
        """
        study = self._study(trial.study_id, definition)
        with study.lock:
            seen = study.judged.get(trial.trial_id)
            if seen is None or seen.token != trial.token or not study.view.holds(trial.trial_id):
                seen = study.judged[trial.trial_id] = _Seen(trial.token)
                study.view.adopt(trial.trial_id, trial.number, trial.sampled, of_new_attempt(trial.attributes))
            if not curve or curve[-1][0] == seen.epoch:
                return seen.prune
            study.view.sync()
            for epoch, metrics in curve:
                if epoch > seen.epoch:
                    seen.epoch = epoch
                    values = values_of(definition.objectives, metrics)
                    whole = len(values) == len(definition.objectives)
                    seen.prune = whole and study.view.report(trial.trial_id, epoch, values)
            return seen.prune

    def attributes(self, study_id: int, trial_id: int) -> dict[str, Any] | None:
        """What sampler and pruner want remembered with a trial that is held here; None where it isn't."""
        with self._lock:
            study = self._open.get(study_id)
        if study is None or not study.view.holds(trial_id):
            return None
        return study.view.system_attributes(trial_id)

    def forget(self, study_id: int, trial_id: int) -> None:
        """Forget a trial that ended or was given back."""
        with self._lock:
            study = self._open.get(study_id)
        if study is not None:
            study.judged.pop(trial_id, None)
            study.view.forget(trial_id)

    def _study(self, study_id: int, definition: StudyDefinition) -> _Open:
        with self._lock:
            known = self._open.get(study_id)
        # A large space takes a while: nobody waits for it who asks for another study.
        made = known or _Open(StudyView(self._database, study_id, definition))
        with self._lock:
            study = self._open.setdefault(study_id, made)
            self._open.move_to_end(study_id)
            while len(self._open) > KEPT_STUDIES:
                self._open.popitem(last=False)
            return study
