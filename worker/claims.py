"""Reserve and sample: from a study with work to a sampled trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import structlog
from sqlalchemy.exc import IntegrityError

from app.domain.registry import Families
from app.domain.stored import read_definition
from app.domain.study import StudyDefinition
from app.domain.trial import FailureReason, Reservation
from app.errors import DefinitionTooNew, FettleError, NotFound
from app.store import leases, workers
from app.store.engine import Database
from app.store.tables import Study
from app.tuning.options import OptionsError
from app.tuning.view import StudyView
from worker.lease_keeper import Keeper
from worker.pool import PooledTrial, StudyRef

OFFERS_FRESH_S = 0.25
"""How long a list of studies with work is used: what a study of higher priority may wait for."""
SYNC_S = 0.05
"""How old what a view knows of other workers' trials may be when it is asked; of its own it knows all."""
CACHED_STUDIES = 64
"""Views kept, each with its study's finished trials; the one not used for longest goes first."""


log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reserved:
    """A leased trial that has yet to be sampled."""

    study: StudyRef
    reservation: Reservation


@dataclass(slots=True)
class _Known:
    revision: int
    study: StudyRef
    view: StudyView
    synced_at: float = float("-inf")


class Claims:
    """Takes trials for one worker. Owns the views of the studies: Optuna's samplers and their caches."""

    def __init__(
        self,
        database: Database,
        keeper: Keeper,
        worker_id: str,
        offer: workers.Offer,
        ttl_s: float,
        registry: Families,
    ) -> None:
        self._database = database
        self._keeper = keeper
        self._worker_id = worker_id
        self._offer = offer
        self._ttl_s = ttl_s
        self._registry = registry
        self._known: dict[int, _Known] = {}
        self._unread: dict[int, int] = {}
        """The revisions of studies that this worker can't read: newer code wrote them."""
        self._offers: list[workers.Claimable] = []
        self._listed_at = 0.0
        self.best_values: dict[int, float] = {}
        """The best value known of each study; the true one may be better meanwhile, never worse."""

    def reserve(
        self, families: Sequence[str], wanted: Callable[[StudyRef, int], int], *, starving: bool
    ) -> list[Reserved]:
        """Trials of one study of these families; none where there is no work.

        `wanted` tells how many, by the study and how many of its trials all workers together held of late. Where there
        was no work a short time ago, only a worker that is `starving` looks again at once.
        """
        now = time.monotonic()
        if now - self._listed_at > OFFERS_FRESH_S or (starving and not self._offers):
            self._offers = self._database.retrying(lambda: self._list(families))
            self._listed_at = now
        for offer in list(self._offers):
            try:
                study = self._study(offer)
                count = wanted(study, offer.leased)
                reserved = self._reserve(study, count) if count > 0 else []
            except NotFound:
                reserved, count = [], 1  # deleted since it was listed
            except (FettleError, OptionsError, LookupError, ValueError) as error:
                self._leave_alone(offer.study_id, offer.public_id, offer.revision, error)
                reserved, count = [], 1
            if reserved:
                return reserved
            if count > 0:
                self._offers.remove(offer)
        return []

    def is_alone(self, study_id: int) -> bool:
        """Whether no other study had work when it was last looked, a short time ago."""
        is_fresh = time.monotonic() - self._listed_at <= OFFERS_FRESH_S
        return is_fresh and all(offer.study_id == study_id for offer in self._offers)

    def sample(self, reserved: Reserved) -> PooledTrial | None:
        """The trial with its hyperparameters; None where the sampler raised, and the trial has failed by it, and where
        the study learns from one that this worker can't read: then it is given back.
        """
        known = self._known[reserved.study.study_id]
        now = time.monotonic()
        try:
            if now - known.synced_at > SYNC_S:
                self._database.retrying(known.view.sync)
                known.synced_at = now
        except DefinitionTooNew as error:
            self._leave_alone(reserved.study.study_id, reserved.study.public_id, known.revision, error)
            self._give_back(reserved)
            return None
        try:
            return PooledTrial(reserved.study, known.view.ask([reserved.reservation])[0])
        except Exception as error:  # whatever a sampler raises: the trial fails in words, the worker lives
            log.exception("sampler_failed", study=reserved.study.public_id, trial=reserved.reservation.number)
            self._fail(reserved, f"The sampler raised {type(error).__name__}: {error}")
            return None

    def view(self, study_id: int) -> StudyView:
        """The view of a study that trials were claimed from."""
        return self._known[study_id].view

    def note_best(self, study: StudyRef, value: float) -> None:
        """Remember the value of a feasible trial of a study with one objective."""
        best = self.best_values.get(study.study_id)
        if best is None or study.definition.objectives[0].is_better(value, best):
            self.best_values[study.study_id] = value

    def note_end(self, study_id: int) -> None:
        """Have the study's view read the end of one of its trials before it is asked again."""
        self._known[study_id].synced_at = float("-inf")

    def forget_unused(self, used: set[int]) -> None:
        """Let go of the views of studies that have not been claimed from for longest and have no trial in flight."""
        for study_id in list(self._known)[: max(0, len(self._known) - CACHED_STUDIES)]:
            if study_id not in used:
                del self._known[study_id]

    def _reserve(self, study: StudyRef, count: int) -> list[Reserved]:
        return self.adopt(
            study,
            self._database.run(
                lambda session: leases.reserve(session, study.study_id, self._worker_id, count, self._ttl_s)
            ),
        )

    def adopt(self, study: StudyRef, reservations: Sequence[Reservation]) -> list[Reserved]:
        """Keep the leases of trials that were reserved."""
        for reservation in reservations:
            self._keeper.hold(reservation.trial_id, reservation.token, study.study_id)
        return [Reserved(study, reservation) for reservation in reservations]

    def _list(self, families: Sequence[str]) -> list[workers.Claimable]:
        with self._database.read() as session:
            found = workers.claimable(session, replace(self._offer, families=families))
        offers = [offer for offer in found if self._unread.get(offer.study_id) != offer.revision]
        for offer in offers:
            if offer.best_value is not None:
                self.best_values[offer.study_id] = offer.best_value
        return offers

    def _definition(self, study_id: int) -> StudyDefinition:
        with self._database.read() as session:
            study = session.get(Study, study_id)
            if study is None:
                raise NotFound("Expected a study that exists. Received one that was deleted.", code="STUDY_NOT_FOUND")
            return read_definition(study.definition or "")

    def _leave_alone(self, study_id: int, public_id: str, revision: int, error: Exception) -> None:
        """Take nothing of a study that this worker can't read, and say so, until its definition changes."""
        if self._unread.get(study_id) == revision:
            return
        log.warning("study_left_alone", study=public_id, worker=self._worker_id, error=str(error))
        note = partial(
            workers.note_unread, study_id=study_id, revision=revision, worker_id=self._worker_id, words=str(error)
        )
        with suppress(IntegrityError):  # deleted since it was listed
            self._database.run(note)
        self._unread[study_id] = revision

    def _give_back(self, reserved: Reserved) -> None:
        pair = (reserved.reservation.trial_id, reserved.reservation.token)
        study_id = reserved.study.study_id
        self._database.run(partial(leases.release, study_id=study_id, leases=[pair], reason="RELEASED"))
        self._keeper.drop(*pair)

    def _fail(self, reserved: Reserved, message: str) -> None:
        pair = (reserved.reservation.trial_id, reserved.reservation.token)
        study_id, reason = reserved.study.study_id, FailureReason.EXCEPTION
        self._database.run(lambda session: leases.fail(session, study_id, [pair], reason, "SAMPLER_FAILED", message))
        self._keeper.drop(*pair)

    def _study(self, offer: workers.Claimable) -> StudyRef:
        known = self._known.pop(offer.study_id, None)
        if known is None or known.revision != offer.revision:
            definition = self._database.retrying(lambda: self._definition(offer.study_id))
            family = self._registry.of(definition.model, definition.hyperparameters)
            study = StudyRef(offer.study_id, offer.public_id, definition, family)
            view = known.view if known else StudyView(self._database, offer.study_id, definition, study.family)
            known = _Known(offer.revision, study, view)
        self._known[offer.study_id] = known
        return known.study
