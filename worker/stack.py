"""One stack's way through the trainer: start, answer its epochs, record its ends.

The conversation is the one of `worker.protocol`. Pruning is decided in memory and answered at once; metrics are written
after the answer, while the trainer works on, at most every `FLUSH_S`, and always with a result.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog
from sqlalchemy.orm import Session

from app.domain.trial import FailureReason, Outcome
from app.errors import NotFound
from app.store import leases, recording
from app.store.engine import Database
from worker.artifacts import ArtifactWriter
from worker.channel import ChannelBroken
from worker.claims import Claims
from worker.keeper import Keeper
from worker.keeping import Keeping
from worker.outcomes import outcome_of
from worker.pool import PooledTrial, StudyRef
from worker.protocol import (
    EpochDone,
    Keep,
    Kept,
    KeptModel,
    Member,
    MemberResult,
    MembersDone,
    Ready,
    Stop,
    StopReason,
    TrainStack,
    Verdict,
)
from worker.trainer import Answer, Trainer

FLUSH_S = 0.25
"""Longest time that a metric waits before it is written, while the trainer reports."""
POLL_S = 0.05
"""How often a silent trainer's stack is looked after: cancelled, timed out, hung."""
STOP_GRACE_S = 10.0
"""How long a member that is to stop may take to reach its epoch's end; then the trainer is killed."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Running:
    """A member of the stack while it trains."""

    trial: PooledTrial
    deadline: float | None
    reports: list[recording.Report] = field(default_factory=list)
    curve: list[tuple[int, float]] = field(default_factory=list)
    stop_since: float | None = None
    drained: bool = False

    @property
    def trial_id(self) -> int:
        """The id of its row."""
        return self.trial.proposal.reservation.trial_id

    @property
    def token(self) -> str:
        """The token of its lease."""
        return self.trial.proposal.reservation.token


@dataclass(frozen=True, slots=True)
class StackSettings:
    """What a stack run needs to know of the settings; times in seconds."""

    worker_id: str
    device: str
    ttl_s: float
    hang_timeout_s: float


class TrainerLost(Exception):
    """The trainer died, or was killed, in the middle of a stack: its message says how."""


class StackRun:
    """Trains the trials of one signature as one stack."""

    def __init__(
        self,
        database: Database,
        keeper: Keeper,
        claims: Claims,
        artifacts: ArtifactWriter,
        settings: StackSettings,
        trials: list[PooledTrial],
    ) -> None:
        self._database = database
        self._keeper = keeper
        self._claims = claims
        self._artifacts = artifacts
        self._settings = settings
        self._study: StudyRef = trials[0].study
        self._view = claims.view(self._study.study_id)
        self._keeping = Keeping(self._study, claims, artifacts)
        self._trials = trials
        self._members: dict[int, Running] = {}
        self._flushed_at = 0.0

    def run(self, trainer: Trainer, meanwhile: Callable[[], None], drain_at: Callable[[], float | None]) -> None:
        """Train the stack to its end.

        `meanwhile` is called while the trainer works: sampling ahead. `drain_at` tells the monotonic time at which a
        draining worker gives its trials back, None while it doesn't drain.

        Raises:
            ChannelBroken, TrainerLost: the trainer is gone; `live` are the members that it took along.
        """
        if not self._start():
            return
        started_at = self._flushed_at = time.monotonic()
        trainer.send(self._request())
        heard_at = time.monotonic()
        while self._members:
            message = trainer.receive(POLL_S)
            if message is not None:
                heard_at = time.monotonic()
                self._answer(trainer, message)
            elif time.monotonic() - heard_at > self._settings.hang_timeout_s:
                trainer.kill()
                raise TrainerLost(
                    f"The trainer was silent for {self._settings.hang_timeout_s:g} seconds and was killed."
                )
            self._look_after(trainer, drain_at())
            if message is None or isinstance(message, EpochDone):
                self._flush(FLUSH_S)
                meanwhile()
        self._claims.note_seconds(self._study, time.monotonic() - started_at)

    @property
    def live(self) -> list[Running]:
        """The members that have not ended."""
        return list(self._members.values())

    def _start(self) -> bool:
        """Make the trials RUNNING; whether any lease still stood."""
        proposals = [t.proposal for t in self._trials]
        held = self._write(
            set[int](),
            lambda session: leases.start(
                session,
                self._study.study_id,
                proposals,
                self._settings.worker_id,
                self._settings.device,
                self._settings.ttl_s,
            ),
        )
        timeout_s = self._study.definition.execution.trial_timeout_seconds
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        slot = 0
        for trial in self._trials:
            reservation = trial.proposal.reservation
            if reservation.trial_id in held:
                self._members[slot] = Running(trial, deadline)
                slot += 1
            else:
                self._let_go(reservation.trial_id, reservation.token)
        return bool(self._members)

    def _request(self) -> TrainStack:
        definition = self._study.definition
        return TrainStack(
            stack=self._trials[0].proposal.reservation.token,
            family=definition.model.family,
            dataset=definition.dataset,
            training=definition.training,
            objectives=definition.objectives,
            choices=self._study.runtime_choices,
            members=[
                Member(
                    member=slot,
                    number=m.trial.proposal.reservation.number,
                    hyperparameters=m.trial.proposal.hyperparameters,
                    seed=m.trial.seed,
                )
                for slot, m in self._members.items()
            ],
        )

    def _answer(self, trainer: Trainer, message: Answer) -> None:
        if isinstance(message, EpochDone):
            stops = [
                stop for report in message.reports for stop in self._judge(report.member, report.epoch, report.metrics)
            ]
            trainer.send(Verdict(stack=message.stack, stop=stops))
        elif isinstance(message, MembersDone):
            keep = [self._keeping.wanted(result, self._member(result.member).token) for result in message.results]
            models = [model for model in keep if model is not None]
            trainer.send(Keep(stack=message.stack, models=models))
            written = self._written(trainer) if models else {}
            self._finish(message.results, written)
        elif not isinstance(message, Ready):
            raise ChannelBroken(f"Expected epoch_done or members_done. Received: {message.kind}")

    def _judge(self, slot: int, epoch: int, metrics: dict[str, float]) -> list[Stop]:
        """Note a report; why the member must stop, if it must."""
        member = self._member(slot)
        reservation = member.trial.proposal.reservation
        member.reports.append(
            recording.Report(
                reservation.trial_id, reservation.token, reservation.number, reservation.attempt, epoch, metrics
            )
        )
        prune = False
        value = metrics.get(self._study.definition.objectives[0].metric)
        if value is not None:
            member.curve.append((epoch, value))
            prune = self._view.report(reservation.trial_id, epoch, value)
        reason = self._stop_reason(member)
        if reason is None and prune and epoch + 1 < self._study.definition.training.epochs:
            reason = "PRUNED"
        return [] if reason is None else [Stop(member=slot, reason=reason)]

    def _member(self, slot: int) -> Running:
        member = self._members.get(slot)
        if member is None:
            raise ChannelBroken(f"Expected news of a member that trains. Received some of member {slot}.")
        return member

    def _stop_reason(self, member: Running) -> StopReason | None:
        if member.drained or self._keeper.is_lost(member.token):
            return "LEASE_LOST"
        if self._keeper.is_halted(self._study.study_id):
            return "CANCELLED"
        if member.deadline is not None and time.monotonic() >= member.deadline:
            return "TIMEOUT"
        return None

    def _look_after(self, trainer: Trainer, drain_at: float | None) -> None:
        """Kill a trainer that doesn't reach the end of an epoch though its members must stop."""
        now = time.monotonic()
        for member in self._members.values():
            if drain_at is not None and now >= drain_at:
                member.drained = True
            if self._stop_reason(member) is None:
                continue
            member.stop_since = member.stop_since or now
            if now - member.stop_since <= (0 if member.drained else STOP_GRACE_S):
                continue
            trainer.kill()
            raise TrainerLost("A trial that had to stop was in the middle of a long epoch: its trainer was killed.")

    def _written(self, trainer: Trainer) -> dict[int, KeptModel]:
        started = time.monotonic()
        while (message := trainer.receive(1.0)) is None:
            if time.monotonic() - started > self._settings.hang_timeout_s:
                trainer.kill()
                raise TrainerLost("The trainer was silent while it wrote a model, and was killed.")
        if not isinstance(message, Kept):
            raise ChannelBroken(f"Expected kept. Received: {message.kind}")
        return {model.member: model for model in message.models}

    def _finish(self, results: list[MemberResult], written: dict[int, KeptModel]) -> None:
        """Record members that ended, with all reports that wait, in one transaction."""
        outcomes: list[Outcome] = []
        reports = self._waiting_reports()
        for result in results:
            member = self._member(result.member)
            del self._members[result.member]
            if result.stop_reason == "LEASE_LOST":
                self._give_back(member)
                continue
            outcomes.append(self._outcome(member, result, written.get(result.member)))
        if not outcomes:
            return
        study_id, ttl_s = self._study.study_id, self._settings.ttl_s
        recorded = self._write(
            recording.Recorded(), lambda session: recording.finish(session, study_id, outcomes, reports, ttl_s)
        )
        self._flushed_at = time.monotonic()
        self._artifacts.remove(recorded.superseded_paths)
        for outcome in outcomes:
            if outcome.trial_id not in recorded.trial_ids:
                log.warning("lease_lost", study=self._study.public_id, trial_id=outcome.trial_id)
                self._artifacts.remove([a.path for a in outcome.artifacts])
            elif outcome.values and outcome.feasible and len(outcome.values) == 1:
                self._claims.note_best(self._study, outcome.values[0])
            self._let_go(outcome.trial_id, outcome.token)
            self._view.finished(outcome)

    def _outcome(self, member: Running, result: MemberResult, model: KeptModel | None) -> Outcome:
        published = self._keeping.published(member.trial.proposal.reservation, model)
        result = result.model_copy(update={"metrics": result.metrics | published.test_metrics})
        return outcome_of(
            result,
            self._study.definition,
            member.trial_id,
            member.token,
            curve=tuple(member.curve),
            attributes=self._view.system_attributes(member.trial_id),
            artifacts=published.artifacts,
            note=published.note,
        )

    def _waiting_reports(self) -> list[recording.Report]:
        reports = [report for member in self._members.values() for report in member.reports]
        for member in self._members.values():
            member.reports = []
        return reports

    def _flush(self, every_s: float) -> None:
        """Write the metrics that wait, where the last time was `every_s` seconds ago."""
        if time.monotonic() - self._flushed_at < every_s:
            return
        self._flushed_at = time.monotonic()
        reports = self._waiting_reports()
        if reports:
            study, ttl_s = self._study, self._settings.ttl_s
            self._database.run(
                lambda session: recording.record(session, study.study_id, study.public_id, reports, ttl_s)
            )

    def _write(self, nothing: T, work: Callable[[Session], T]) -> T:
        """The result of `work` in a transaction, or `nothing` where the study was deleted: all its leases are lost."""
        try:
            return self._database.run(work)
        except NotFound:
            return nothing

    def _let_go(self, trial_id: int, token: str) -> None:
        self._keeper.drop(trial_id, token)
        self._view.forget(trial_id)

    def _give_back(self, member: Running) -> None:
        """Release a lease, where it still stands: the trial waits for another worker, uncharged."""
        pair = [(member.trial_id, member.token)]
        self._write(set[int](), lambda session: leases.release(session, self._study.study_id, pair, "RELEASED"))
        self._let_go(member.trial_id, member.token)

    def abandon(self, message: str, *, code: str) -> None:
        """After the loss of the trainer: record what was due, charge a member that was alone, give the others back."""
        self._flush(0)
        for member in self.live:
            reason = self._stop_reason(member)
            if reason in ("TIMEOUT", "CANCELLED"):
                slot = next(s for s, m in self._members.items() if m is member)
                epochs = len(member.curve)
                self._finish([MemberResult(member=slot, outcome="stopped", stop_reason=reason, epochs=epochs)], {})
        live = self.live
        for member in live:
            if len(live) > 1 or self._stop_reason(member) is not None:
                self._give_back(member)
                continue
            self._charge(member, code, message)
        self._members.clear()

    def _charge(self, member: Running, code: str, message: str) -> None:
        """Count the attempt that broke the trainer; the last one fails the trial."""
        pair = [(member.trial_id, member.token)]
        study_id = self._study.study_id
        reason = FailureReason.EXCEPTION
        self._write(set[int](), lambda session: leases.charge(session, study_id, pair, reason, code, message))
        self._let_go(member.trial_id, member.token)
