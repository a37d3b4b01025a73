"""What a stack writes to the database: its trials' starts, metrics and ends, each in as few transactions as may be.

A study that was deleted meanwhile is no error here: all its leases are lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.domain.metrics import values_of
from app.domain.population import HANDED_ON_KEY
from app.domain.trial import FailureReason, Outcome, Reservation
from app.errors import NotFound
from app.store import leases, recording, turnover, warnings
from app.store.engine import Database
from app.store.warnings import StudyWarning
from worker.artifacts import ArtifactWriter
from worker.checkpoints import Checkpoints
from worker.claims import Claims
from worker.feeder import Feeder
from worker.kept_models import Keeping
from worker.lease_keeper import Keeper
from worker.outcomes import outcome_of
from worker.pool import PooledTrial, StudyRef
from worker.trainer.protocol import DataNote, EpochReport, KeptModel, KeptSnapshot, MemberResult, ResumedMember

T = TypeVar("T")

NOTHING: Mapping[int, KeptSnapshot] = MappingProxyType({})

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Running:
    """A member of the stack while it trains."""

    trial: PooledTrial
    deadline: float | None
    reports: list[recording.Report] = field(default_factory=list)
    curve: list[tuple[float, ...]] = field(default_factory=list)
    stop_since: float | None = None
    drained: bool = False
    snapshot_at: float = field(default_factory=time.monotonic)
    """When its last checkpoint was written, or its training began."""
    snapshot_pending: str | None = None
    """Where the snapshot is being written that was last asked for; None where none is."""

    @property
    def trial_id(self) -> int:
        """The id of its row."""
        return self.trial.trial_id

    @property
    def token(self) -> str:
        """The token of its lease."""
        return self.trial.token

    def take_reports(self) -> list[recording.Report]:
        """The reports that have yet to be written; they are no longer."""
        reports, self.reports = self.reports, []
        return reports


@dataclass(frozen=True, slots=True)
class StackSettings:
    """What a stack run needs to know of the settings; times in seconds."""

    worker_id: str
    device: str
    ttl_s: float
    hang_timeout_s: float
    checkpoint_interval_s: float
    memory_mb: float | None = None
    kill_memory_mb: float = float("inf")


class Ledger:
    """The records of one stack's study. Not thread-safe."""

    def __init__(
        self,
        database: Database,
        keeper: Keeper,
        claims: Claims,
        feeder: Feeder,
        artifacts: ArtifactWriter,
        settings: StackSettings,
        study: StudyRef,
    ) -> None:
        self._database = database
        self._keeper = keeper
        self._claims = claims
        self._feeder = feeder
        self._artifacts = artifacts
        self._settings = settings
        self._study = study
        self._view = claims.view(study.study_id)
        self._flushed_at = time.monotonic()
        self.keeping = Keeping(study, claims, artifacts)
        self.checkpoints = Checkpoints(
            database, artifacts, study, every_s=settings.checkpoint_interval_s, ttl_s=settings.ttl_s
        )
        self.recorded = 0
        """Trials whose end went through here."""

    def start(self, trials: Sequence[PooledTrial]) -> list[Running]:
        """Make the trials RUNNING; those whose lease still stood."""
        if not trials:
            return []
        proposals = [t.proposal for t in trials]
        settings, study_id = self._settings, self._study.study_id
        held = self._write(
            set[int](),
            lambda session: leases.start(
                session, study_id, proposals, settings.worker_id, settings.device, settings.ttl_s
            ),
        )
        timeout_s = self._study.definition.execution.trial_timeout_seconds
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._release([trial for trial in trials if trial.trial_id not in held])
        return [Running(trial, deadline) for trial in trials if trial.trial_id in held]

    def flush(self, members: Sequence[Running], every_s: float) -> None:
        """Write the metrics of members that wait, where the last time was `every_s` seconds ago."""
        if time.monotonic() - self._flushed_at < every_s:
            return
        self._flushed_at = time.monotonic()
        reports = [report for member in members for report in member.take_reports()]
        if reports:
            study, ttl_s = self._study, self._settings.ttl_s
            self._database.run(
                lambda session: recording.record(session, study.study_id, study.public_id, reports, ttl_s)
            )

    def finish(
        self,
        ended: Sequence[tuple[Running, MemberResult]],
        others: Sequence[Running],
        model: KeptModel | None = None,
        snapshots: Mapping[int, KeptSnapshot] = NOTHING,
        *,
        refill: bool = True,
    ) -> None:
        """Record members that ended, with all reports that wait, the `others`' too, in one transaction.

        `model` is a single one's; `snapshots`, by trial id, are what they leave to later trials. With `refill` it
        reserves as many trials as the feeder misses, where it may.
        """
        outcomes = [self._outcome(member, result, model, snapshots.get(member.trial_id)) for member, result in ended]
        if not outcomes:
            return
        running = {member.trial_id: member for member, _ in ended}
        members = [*(member for member, _ in ended), *others]
        reports = [report for member in members for report in member.take_reports()]
        settings, study = self._settings, self._study
        count = self._feeder.missing(study, leaving=len(outcomes)) if refill else 0
        nothing: tuple[recording.Recorded, list[Reservation]] = recording.Recorded(), []
        recorded, reservations = self._write(
            nothing,
            lambda session: turnover.finish_and_reserve(
                session, study.study_id, outcomes, reports, count, settings.worker_id, settings.ttl_s
            ),
        )
        self._flushed_at = time.monotonic()
        self._artifacts.remove(recorded.superseded_paths)
        for outcome in outcomes:
            if outcome.trial_id not in recorded.trial_ids:
                number = running[outcome.trial_id].trial.proposal.reservation.number
                log.warning("lease_lost", study=study.public_id, trial=number)
                left = [] if outcome.checkpoint is None else [outcome.checkpoint.path]
                self._artifacts.remove([*(file.path for file in outcome.artifacts), *left])
            elif outcome.values and outcome.feasible and len(outcome.values) == 1:
                self._claims.note_best(study, outcome.values[0])
            self.checkpoints.release(running[outcome.trial_id])
            self.let_go(running[outcome.trial_id].trial, recorded=True)
            self.recorded += 1
        self._feeder.add(study, reservations)

    def give_back(self, member: Running) -> None:
        """Release a lease, where it still stands: the trial waits for another worker, uncharged."""
        self.checkpoints.release(member)
        self._release([member.trial])

    def charge(self, member: Running, reason: FailureReason, code: str, message: str) -> None:
        """Count the attempt that broke the trainer; the last one fails the trial with `reason`."""
        self.checkpoints.release(member)
        trial = member.trial
        pair = [(trial.trial_id, trial.token)]
        study_id = self._study.study_id
        self._write(set[int](), lambda session: leases.charge(session, study_id, pair, reason, code, message))
        self.let_go(trial)

    def let_go(self, trial: PooledTrial, *, recorded: bool = False) -> None:
        """Forget a trial that was recorded, given back or lost."""
        self._keeper.drop(trial.trial_id, trial.token)
        if recorded:
            self._view.ended(trial.trial_id)
        else:
            self._view.forget(trial.trial_id)
        self._feeder.note_end(trial)

    def _release(self, trials: Sequence[PooledTrial]) -> None:
        """Give trials back, such as those of a study that was paused before they were started."""
        if not trials:
            return
        pairs = [(trial.trial_id, trial.token) for trial in trials]
        self._write(set[int](), lambda session: leases.release(session, self._study.study_id, pairs, "RELEASED"))
        for trial in trials:
            self.let_go(trial)

    def resumed(self, member: Running, told: ResumedMember) -> None:
        """Note where a trial started; the pruner sees the epochs behind it as if they had just been reported."""
        self.checkpoints.resumed(member, told)
        for epoch, *values in member.curve:
            if len(values) == len(self._study.definition.objectives):
                self._view.report(member.trial_id, int(epoch), values)

    def warn(self, notes: Sequence[DataNote]) -> None:
        """Keep what the study's owner should know of the data."""
        told = [StudyWarning(note.code, note.message, ("dataset",)) for note in notes]
        with suppress(IntegrityError):  # the study was deleted
            self._database.run(lambda session: warnings.warn(session, self._study.study_id, told))

    def report(self, member: Running, report: EpochReport) -> bool:
        """Note an epoch of a member; whether the pruner ends it.

        A member that is trained several times, with folds or repeats, is judged by the results of each time.
        """
        r = member.trial.proposal.reservation
        member.reports.append(recording.Report(r.trial_id, r.token, r.number, r.attempt, report.epoch, report.metrics))
        step, known = report.epoch, report.metrics
        if self._study.definition.training.instances > 1:
            if report.instance_result is None:
                return False
            step, known = report.instance, report.instance_result
        elif report.so_far:
            known = {**report.so_far, **known}
        values = values_of(self._study.definition.objectives, known)
        if not values:
            return False
        member.curve.append((step, *values))
        if len(values) < len(self._study.definition.objectives):
            return False
        return self._view.report(r.trial_id, step, values)

    def _outcome(
        self, member: Running, result: MemberResult, model: KeptModel | None, snapshot: KeptSnapshot | None
    ) -> Outcome:
        checkpoint = None if snapshot is None else self.checkpoints.published(member, snapshot)
        attributes = self._view.system_attributes(member.trial_id)
        published = self.keeping.published(member.trial.proposal.reservation, model)
        outcome = outcome_of(
            result,
            self._study.definition,
            member.trial_id,
            member.token,
            curve=tuple(member.curve),
            attributes=attributes if checkpoint is None else {**attributes, HANDED_ON_KEY: True},
            artifacts=published.artifacts,
            note=published.note,
            test_metrics=published.test_metrics,
        )
        return replace(outcome, checkpoint=checkpoint)

    def _write(self, nothing: T, work: Callable[[Session], T]) -> T:
        """The result of `work` in a transaction, or `nothing` where the study was deleted: all its leases are lost."""
        try:
            return self._database.run(work)
        except NotFound:
            return nothing
