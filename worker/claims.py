"""Reserve and sample: from a study with work to trials in the pool."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import structlog

from app.domain.study import StudyDefinition
from app.domain.trial import FailureReason, Reservation
from app.errors import NotFound
from app.store import fleet, leases
from app.store.engine import Database, retrying
from app.store.tables import Study
from app.tuning.samplers import sampler_learns
from app.tuning.view import StudyView
from worker.keeper import Keeper
from worker.pool import PooledTrial, StudyRef

OFFERS_FRESH_S = 0.25
"""How long a list of studies with work is used: what a study of higher priority may wait for."""
SHORT_TRIAL_S = 0.1
INDEPENDENT_BATCH = 16
"""Trials shorter than this, of a sampler that learns nothing from others, are claimed so many at a time."""
CACHED_STUDIES = 64
"""Views kept, each with its study's finished trials; the one not used for longest goes first."""


log = structlog.get_logger(__name__)


class Claims:
    """Takes trials for one worker. Owns the views of the studies: Optuna's samplers and their caches."""

    def __init__(self, database: Database, keeper: Keeper, worker_id: str, offer: fleet.Offer, ttl_s: float) -> None:
        self._database = database
        self._keeper = keeper
        self._worker_id = worker_id
        self._offer = offer
        self._ttl_s = ttl_s
        self._views: dict[int, tuple[int, StudyRef, StudyView]] = {}
        self._offers: list[fleet.Claimable] = []
        self._listed_at = 0.0
        self._quick: set[int] = set()
        self.best_values: dict[int, float] = {}
        """The best value known of each study; the true one may be better meanwhile, never worse."""

    def claim(self, count: int, families: Sequence[str]) -> list[PooledTrial]:
        """Up to `count` trials of one study of these families, reserved and sampled; none where there is no work."""
        now = time.monotonic()
        if not self._offers or now - self._listed_at > OFFERS_FRESH_S:
            self._offers = retrying(lambda: self._list(families))
            self._listed_at = now
        while self._offers:
            try:
                trials = self._claim_from(self._offers[0], count)
            except NotFound:
                trials = []  # deleted since it was listed
            if trials:
                return trials
            del self._offers[0]
        return []

    def view(self, study_id: int) -> StudyView:
        """The view of a study that trials were claimed from."""
        return self._views[study_id][2]

    def _claim_from(self, offer: fleet.Claimable, count: int) -> list[PooledTrial]:
        if offer.study_id in self._quick:
            count = max(count, INDEPENDENT_BATCH)
        reservations = self._database.run(
            lambda session: leases.reserve(session, offer.study_id, self._worker_id, count, self._ttl_s)
        )
        if not reservations:
            return []
        for reservation in reservations:
            self._keeper.hold(reservation.trial_id, reservation.token, offer.study_id)
        study, view = self._study(offer)
        retrying(view.sync)
        try:
            proposals = view.ask(reservations)
        except Exception as error:  # whatever a sampler raises: the trial fails in words, the worker lives
            log.exception("sampler_failed", study=study.public_id)
            self._fail(offer.study_id, reservations, f"The sampler raised {type(error).__name__}: {error}")
            return []
        return [PooledTrial(study, proposal) for proposal in proposals]

    def _list(self, families: Sequence[str]) -> list[fleet.Claimable]:
        with self._database.read() as session:
            offers = fleet.claimable(session, replace(self._offer, families=families))
        for offer in offers:
            if offer.best_value is not None:
                self.best_values[offer.study_id] = offer.best_value
        return offers

    def _definition(self, study_id: int) -> StudyDefinition:
        with self._database.read() as session:
            return StudyDefinition.model_validate_json(session.get_one(Study, study_id).definition or "")

    def note_seconds(self, study: StudyRef, seconds: float) -> None:
        """Remember how long a trial of the study took."""
        if seconds < SHORT_TRIAL_S and not sampler_learns(study.definition):
            self._quick.add(study.study_id)
        else:
            self._quick.discard(study.study_id)

    def note_best(self, study: StudyRef, value: float) -> None:
        """Remember the value of a feasible trial of a study with one objective."""
        best = self.best_values.get(study.study_id, value)
        pick = max if study.definition.objectives[0].direction == "maximize" else min
        self.best_values[study.study_id] = pick(best, value)

    def _fail(self, study_id: int, reservations: list[Reservation], message: str) -> None:
        pairs = [(r.trial_id, r.token) for r in reservations]
        reason = FailureReason.EXCEPTION
        self._database.run(lambda session: leases.fail(session, study_id, pairs, reason, "SAMPLER_FAILED", message))
        for trial_id, token in pairs:
            self._keeper.drop(trial_id, token)

    def _study(self, offer: fleet.Claimable) -> tuple[StudyRef, StudyView]:
        revision, study, view = self._views.pop(offer.study_id, (None, None, None))
        if study is None or view is None or revision != offer.revision:
            definition = retrying(lambda: self._definition(offer.study_id))
            study = StudyRef(offer.study_id, offer.public_id, definition)
            view = view or StudyView(self._database, offer.study_id, definition)
        self._views[offer.study_id] = (offer.revision, study, view)
        while len(self._views) > CACHED_STUDIES:
            del self._views[next(iter(self._views))]
        return study, view
