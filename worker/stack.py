"""One stack's way through the trainer: start, answer its epochs, record its ends, refill its slots.

The conversation is the one of `worker.protocol`. Pruning is decided in memory and answered at once; metrics are written
after the answer, while the trainer works on, at most every `FLUSH_S`, and always with a result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
from worker.feeder import Feeder
from worker.keeper import Keeper
from worker.keeping import Keeping
from worker.outcomes import outcome_of
from worker.pool import PooledTrial, StudyRef
from worker.protocol import (
    Answer,
    EpochDone,
    Halt,
    Join,
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
from worker.trainer import Trainer

FLUSH_S = 0.25
"""Longest time that a metric waits before it is written, while the trainer reports."""
POLL_S = 0.05
"""How often a silent trainer's stack is looked after: cancelled, timed out, hung."""
STOP_GRACE_S = 10.0
"""How long a member that is to stop may take to reach its epoch's end; then the trainer is killed."""
JOIN_TOGETHER = 4
"""Trials that join in mid-stack at least, where so many slots are free: each time is a transaction."""

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


class TrainerLost(Exception):
    """The trainer died, or was killed, in the middle of a stack: its message says how."""


class StackRun:
    """Trains trials of one signature as one stack: the first ones, and those that join while it trains."""

    def __init__(
        self,
        database: Database,
        keeper: Keeper,
        claims: Claims,
        feeder: Feeder,
        artifacts: ArtifactWriter,
        settings: StackSettings,
        trials: list[PooledTrial],
    ) -> None:
        self._database = database
        self._keeper = keeper
        self._claims = claims
        self._feeder = feeder
        self._artifacts = artifacts
        self._settings = settings
        self._first = trials[0]
        self._study: StudyRef = self._first.study
        self._view = claims.view(self._study.study_id)
        self._keeping = Keeping(self._study, claims, artifacts)
        self._trials = trials
        self._members: dict[int, Running] = {}
        self._unwritten: dict[int, tuple[Running, MemberResult]] = {}
        self._next_member = 0
        self._draining = False
        self._flushed_at = 0.0
        self._judged = self._study.definition.pruner.name != "none"
        self.trained = 0

    def run(self, trainer: Trainer, meanwhile: Callable[[], bool], drain_at: Callable[[], float | None]) -> None:
        """Train the stack to its end.

        `meanwhile` is called while the trainer works, and tells whether it did anything: sampling ahead. `drain_at`
        tells the monotonic time at which a draining worker gives its trials back, None while it doesn't drain.

        Raises:
            ChannelBroken, TrainerLost: the trainer is gone; `live` are the members that it took along.
        """
        members = self._started(self._trials)
        if not members:
            return
        self._flushed_at = heard_at = time.monotonic()
        trainer.send(self._request(members))
        busy = False
        while self._members or self._unwritten:
            message = trainer.receive(0.0 if busy else POLL_S)
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
            busy = meanwhile()
            self._fill_slots(trainer)

    @property
    def live(self) -> list[Running]:
        """The members that have not ended."""
        return list(self._members.values())

    def _started(self, trials: Sequence[PooledTrial]) -> list[Member]:
        """Make the trials RUNNING; as members those whose lease still stood."""
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
        members = []
        for trial in trials:
            if trial.trial_id not in held:
                self._let_go(trial)
                continue
            number, self._next_member = self._next_member, self._next_member + 1
            self._members[number] = Running(trial, deadline)
            proposal = trial.proposal
            members.append(
                Member(
                    member=number,
                    number=proposal.reservation.number,
                    hyperparameters=proposal.hyperparameters,
                    seed=trial.seed,
                )
            )
        return members

    def _request(self, members: list[Member]) -> TrainStack:
        definition = self._study.definition
        return TrainStack(
            stack=self._first.token,
            family=definition.model.family,
            dataset=definition.dataset,
            training=definition.training,
            objectives=definition.objectives,
            choices=self._study.runtime_choices,
            slots=slots_of(self._first),
            expected=self._study.expected(self._first.proposal.reservation.number),
            judged=self._judged,
            members=members,
        )

    def _answer(self, trainer: Trainer, message: Answer) -> None:
        if isinstance(message, EpochDone):
            self._feeder.note_width(self._first, message.width)
            stops = [
                stop for report in message.reports for stop in self._judge(report.member, report.epoch, report.metrics)
            ]
            if self._judged:
                trainer.send(Verdict(stack=message.stack, stop=stops))
            elif stops:
                trainer.send(Halt(stack=message.stack, stop=stops))
        elif isinstance(message, MembersDone):
            self._end(trainer, message.results)
        elif isinstance(message, Kept):
            for model in message.models:
                member, result = self._unwritten.pop(model.member)
                self._finish([(member, result)], model)
        elif not isinstance(message, Ready):
            raise ChannelBroken(f"Expected epoch_done or members_done. Received: {message.kind}")

    def _end(self, trainer: Trainer, results: Sequence[MemberResult]) -> None:
        """Refill the slots of members that ended, and record them: those whose model is written once it is."""
        ended = {result.member: (self._member(result.member), result) for result in results}
        models = self._keeping.wanted(results, {number: member.token for number, (member, _) in ended.items()})
        for number in ended:
            del self._members[number]
        for model in models:
            self._unwritten[model.member] = ended.pop(model.member)
        joining = self._started(self._next_trials())
        trainer.send(Keep(stack=self._first.token, models=models, join=joining))
        self._finish(list(ended.values()))

    def _next_trials(self, at_least: int = 1) -> list[PooledTrial]:
        """Trials for the free slots: none for a retried trial, which runs alone, nor while the worker drains."""
        if self._first.is_retry or self._draining or self._keeper.is_halted(self._study.study_id):
            return []
        free = min(self._feeder.width(self._first), slots_of(self._first)) - len(self._members)
        return self._feeder.take_more(self._first.signature, free, at_least=at_least)

    def _fill_slots(self, trainer: Trainer) -> None:
        """Let waiting trials join while others train."""
        if not self._members:
            return
        joining = self._started(self._next_trials(JOIN_TOGETHER))
        if joining:
            trainer.send(Join(stack=self._first.token, members=joining))

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
        """Halt members that must stop; kill a trainer that doesn't reach the end of an epoch in time."""
        now = time.monotonic()
        self._draining = drain_at is not None
        halted = []
        for number, member in self._members.items():
            if drain_at is not None and now >= drain_at:
                member.drained = True
            reason = self._stop_reason(member)
            if reason is None:
                continue
            if member.stop_since is None:
                member.stop_since = now
                halted.append(Stop(member=number, reason=reason))
            if now - member.stop_since <= (0 if member.drained else STOP_GRACE_S):
                continue
            trainer.kill()
            raise TrainerLost("A trial that had to stop was in the middle of a long epoch: its trainer was killed.")
        if halted:
            trainer.send(Halt(stack=self._first.token, stop=halted))

    def _finish(self, ended: Sequence[tuple[Running, MemberResult]], model: KeptModel | None = None) -> None:
        """Record members that ended, with all reports that wait, in one transaction; `model` is a single one's."""
        outcomes: list[Outcome] = []
        trials = {member.trial_id: member.trial for member, _ in ended}
        for member, result in ended:
            if result.stop_reason == "LEASE_LOST":
                self._give_back(member)
            else:
                outcomes.append(self._outcome(member, result, model))
        if not outcomes:
            return
        reports = [report for member, _ in ended for report in member.take_reports()] + self._waiting_reports()
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
            self._let_go(trials[outcome.trial_id])
            self.trained += 1

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
        members = [*self._members.values(), *(member for member, _ in self._unwritten.values())]
        return [report for member in members for report in member.take_reports()]

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

    def _let_go(self, trial: PooledTrial) -> None:
        self._keeper.drop(trial.trial_id, trial.token)
        self._view.forget(trial.trial_id)
        self._feeder.note_end(trial)

    def _give_back(self, member: Running) -> None:
        """Release a lease, where it still stands: the trial waits for another worker, uncharged."""
        pair = [(member.trial_id, member.token)]
        self._write(set[int](), lambda session: leases.release(session, self._study.study_id, pair, "RELEASED"))
        self._let_go(member.trial)

    def abandon(self, message: str, *, code: str) -> None:
        """After the loss of the trainer: record what was due, charge a member that was alone, give the others back."""
        self._flush(0)
        for number, (member, result) in list(self._unwritten.items()):
            del self._unwritten[number]
            lost = KeptModel(member=number, path="", error="The trainer was lost before it had written the model.")
            self._finish([(member, result)], lost)
        for number, member in list(self._members.items()):
            reason = self._stop_reason(member)
            if reason in ("TIMEOUT", "CANCELLED"):
                del self._members[number]
                epochs = len(member.curve)
                stopped = MemberResult(member=number, outcome="stopped", stop_reason=reason, epochs=epochs)
                self._finish([(member, stopped)])
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
        self._let_go(member.trial)


def slots_of(trial: PooledTrial) -> int:
    """How many trials of this one's signature may train at once: itself where it is tried again."""
    if trial.is_retry:
        return 1
    members = trial.study.family.stack_members
    parallel = trial.study.definition.max_parallel
    return members if parallel is None else min(members, parallel)
