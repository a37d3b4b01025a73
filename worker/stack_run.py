"""One stack's way through the trainer: start, answer its epochs, record its ends, refill its slots.

The conversation is the one of `worker.trainer.protocol`. Pruning is decided in memory and answered at once; metrics are
written after the answer, while the trainer works on, at most every `FLUSH_S`, and always with a result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from app.domain.population import population_of
from worker.checkpoints import LAST_MOMENTS_S
from worker.datasets import Local
from worker.feeder import Feeder
from worker.lease_keeper import Keeper
from worker.ledger import NOTHING, Ledger, Running, StackSettings
from worker.pool import PooledTrial, StudyRef
from worker.trainer.channel import ChannelBroken
from worker.trainer.process import Trainer, TrainerLost
from worker.trainer.protocol import (
    Answer,
    EpochDone,
    EpochReport,
    Faulted,
    Halt,
    Join,
    Keep,
    Kept,
    KeptModel,
    KeptSnapshot,
    Member,
    MemberResult,
    MembersDone,
    Noted,
    Ready,
    Resumed,
    Stop,
    StopReason,
    TakeSnapshot,
    TakeSnapshots,
    TrainStack,
    Verdict,
)

FLUSH_S = 0.25
"""Longest time that a metric waits before it is written, while the trainer reports."""
POLL_S = 0.05
"""How often a silent trainer's stack is looked after: cancelled, timed out, hung."""
STOP_GRACE_S = 10.0
"""How long a member that is to stop may take to reach its epoch's end; then the trainer is killed."""
JOIN_TOGETHER = 4
"""Trials that join in mid-stack at least, where so many slots are free: each time is a transaction."""


class StackRun:
    """Trains trials of one signature as one stack: the first ones, and those that join while it trains."""

    def __init__(
        self,
        ledger: Ledger,
        keeper: Keeper,
        feeder: Feeder,
        settings: StackSettings,
        trials: list[PooledTrial],
        may_refill: Callable[[], bool],
        data: Local,
    ) -> None:
        """`may_refill` tells whether others may join the trials: not where the trainer is to be replaced."""
        self._ledger = ledger
        self._keeper = keeper
        self._feeder = feeder
        self._settings = settings
        self._first = trials[0]
        self._study: StudyRef = self._first.study
        self._trials = trials
        self._may_refill = may_refill
        self._data = data
        self._members: dict[int, Running] = {}
        self._unwritten: dict[int, tuple[Running, MemberResult]] = {}
        self._after: dict[int, list[tuple[Running, MemberResult]]] = {}
        """Members that are no better than one whose model is being written, by its number: recorded first, one of them
        would be the best, and without a model."""
        self._next_member = 0
        self._draining = False
        self._judged = self._study.definition.pruner.name != "none"
        self._in_order = self._study.definition.training.deterministic
        self._ended: dict[int, tuple[Running, MemberResult, KeptModel | None, Mapping[int, KeptSnapshot]]] = {}
        """Of a deterministic study: members whose end is recorded with the stack's, in their order."""

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
        heard_at = time.monotonic()
        trainer.send(self._request(members))
        busy = False
        while self._members or self._unwritten:
            message = trainer.receive(0.0 if busy else POLL_S)
            if message is not None:
                self._answer(trainer, message)
                heard_at = time.monotonic()  # it waited while the database let us wait
            elif time.monotonic() - heard_at > self._settings.hang_timeout_s:
                trainer.kill()
                raise TrainerLost(
                    f"The trainer was silent for {self._settings.hang_timeout_s:g} seconds and was killed."
                )
            trainer.check_memory(self._settings.kill_memory_mb)
            self._look_after(trainer, drain_at())
            if message is None or isinstance(message, EpochDone):
                self._ledger.flush(self._reporting, FLUSH_S)
            busy = meanwhile()
            self._fill_slots(trainer)
        self._finish_in_order()

    @property
    def live(self) -> list[Running]:
        """The members that have not ended."""
        return list(self._members.values())

    @property
    def _reporting(self) -> list[Running]:
        """The members whose reports may wait to be written."""
        waiting = [*self._unwritten.values(), *(ended[:2] for ended in self._ended.values())]
        waiting += [pair for after in self._after.values() for pair in after]
        return [*self._members.values(), *(member for member, _ in waiting)]

    def _started(self, trials: Sequence[PooledTrial]) -> list[Member]:
        """Make the trials RUNNING; as members those whose lease still stood."""
        members = []
        started = self._ledger.start(trials)
        resumes = self._ledger.checkpoints.resumes(started)
        population = population_of(self._study.definition)
        for running in started:
            number, self._next_member = self._next_member, self._next_member + 1
            self._members[number] = running
            proposal = running.trial.proposal
            members.append(
                Member(
                    member=number,
                    number=proposal.reservation.number,
                    hyperparameters=proposal.hyperparameters,
                    seed=running.trial.seed,
                    epochs=None if population is None else population.segment(proposal.first_epoch),
                    resume=resumes.get(running.trial_id, []),
                )
            )
        return members

    def _request(self, members: list[Member]) -> TrainStack:
        definition = self._study.definition
        return TrainStack(
            stack=self._first.token,
            family=definition.model.family,
            model=definition.model,
            dataset=definition.dataset,
            data=self._data.path,
            data_problem=self._data.problem,
            training=definition.training,
            objectives=definition.objectives,
            choices=self._study.runtime_choices,
            gains=list(self._study.family.gains),
            slots=slots_of(self._first),
            expected=self._study.expected(self._first.proposal.reservation.number),
            memory_mb=self._settings.memory_mb,
            judged=self._judged,
            members=members,
        )

    def _answer(self, trainer: Trainer, message: Answer) -> None:
        if isinstance(message, EpochDone):
            self._feeder.note_width(self._first, message.width)
            stops = [stop for report in message.reports for stop in self._judge(report)]
            self._ask_snapshots(trainer, self._ledger.checkpoints.due(self._members))
            if self._judged:
                trainer.send(Verdict(stack=message.stack, stop=stops))
            elif stops:
                trainer.send(Halt(stack=message.stack, stop=stops))
        elif isinstance(message, MembersDone):
            self._end(trainer, message.results)
        elif isinstance(message, Kept):
            self._take_in(message)
        elif isinstance(message, Resumed):
            for told in message.members:
                self._ledger.resumed(self._member(told.member), told)
        elif isinstance(message, Noted):
            self._ledger.warn(message.notes)
        elif not isinstance(message, Ready | Faulted):
            raise ChannelBroken(f"Expected epoch_done or members_done. Received: {message.kind}")

    def _ask_snapshots(self, trainer: Trainer, wanted: list[TakeSnapshot]) -> None:
        if wanted:
            trainer.send(TakeSnapshots(stack=self._first.token, snapshots=wanted))

    def _take_in(self, kept: Kept) -> None:
        """Record what was written: of members that still train, and of those that have waited for it to end."""
        snapshots = {}
        for snapshot in kept.snapshots:
            ended = self._unwritten.get(snapshot.member)
            member = self._members.get(snapshot.member) if ended is None else ended[0]
            if member is not None and member.snapshot_pending == snapshot.path:
                snapshots[snapshot.member] = snapshot
            else:  # of a member that has been recorded, or from before what it leaves at its end
                self._ledger.checkpoints.discard(snapshot)
        training = [(self._members[n], s) for n, s in snapshots.items() if n in self._members]
        self._ledger.checkpoints.write(training, self._reporting)
        left = {self._unwritten[n][0].trial_id: s for n, s in snapshots.items() if n in self._unwritten}
        for model in kept.models:
            self._finish_written(model.member, model, left)
        for number in [n for n in snapshots if n in self._unwritten]:
            self._finish_written(number, None, left)

    def _finish_written(self, number: int, model: KeptModel | None, snapshots: Mapping[int, KeptSnapshot]) -> None:
        """Record a member that has waited for its files, or hold it back for its turn."""
        ended = self._unwritten.pop(number)
        if self._in_order:
            self._ended[number] = (*ended, model, snapshots)
        else:
            self._finish([ended], model, snapshots)
            self._finish(self._after.pop(number, []))

    def _end(self, trainer: Trainer, results: Sequence[MemberResult]) -> None:
        """Refill the slots of members that ended, and record them: those whose model is written once it is."""
        ended = {result.member: (self._member(result.member), result) for result in results}
        models = self._ledger.keeping.wanted(results, {number: member.token for number, (member, _) in ended.items()})
        snapshots = self._ledger.checkpoints.handed_on(ended)
        given_back = [
            n for n, (m, r) in ended.items() if m.drained and m.snapshot_pending and r.stop_reason == "LEASE_LOST"
        ]
        waiting = {*(s.member for s in snapshots), *given_back}
        for number, (member, _) in ended.items():
            del self._members[number]
            if number not in waiting:  # a checkpoint of a trial that is over comes too late
                member.snapshot_pending = None
        for number in {*(m.member for m in models), *waiting}:
            self._unwritten[number] = ended.pop(number)
        if self._in_order:
            self._ended |= {number: (*pair, None, NOTHING) for number, pair in ended.items()}
            ended = {}
        elif len(models) == 1:
            values = self._unwritten[models[0].member][1].values
            ties = [number for number, (_, result) in ended.items() if result.values == values]
            self._after[models[0].member] = [ended.pop(number) for number in ties]
        try:
            joining = self._started(self._next_trials())
            trainer.send(Keep(stack=self._first.token, models=models, snapshots=snapshots, join=joining))
        finally:
            self._finish(list(ended.values()))  # also where the trainer is gone: their results are here

    def _next_trials(self, at_least: int = 1) -> list[PooledTrial]:
        """Trials for the free slots: none for a retried trial, which runs alone, nor where the stack is to end."""
        if self._first.is_retry or self._in_order or self._draining or self._keeper.is_halted(self._study.study_id):
            return []
        free = min(self._feeder.width(self._first), slots_of(self._first)) - len(self._members)
        if free <= 0 or not self._may_refill():
            return []
        return self._feeder.take_more(self._first, free, at_least=at_least)

    def _fill_slots(self, trainer: Trainer) -> None:
        """Let waiting trials join while others train."""
        if not self._members:
            return
        joining = self._started(self._next_trials(JOIN_TOGETHER))
        if joining:
            trainer.send(Join(stack=self._first.token, members=joining))

    def _judge(self, report: EpochReport) -> list[Stop]:
        """Note a report; why the member must stop, if it must."""
        member = self._member(report.member)
        prune = self._ledger.report(member, report)
        reason = self._stop_reason(member)
        training = self._study.definition.training
        step, steps = report.epoch, training.epochs
        if training.instances > 1:
            step, steps = report.instance, training.instances
        if reason is None and prune and step + 1 < steps:
            reason = "PRUNED"
        return [] if reason is None else [Stop(member=report.member, reason=reason)]

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
        if drain_at is not None and now >= drain_at - LAST_MOMENTS_S:
            self._ask_last_snapshots(trainer)
        for number, member in self._members.items():
            if drain_at is not None and now >= drain_at:
                member.drained = True
            reason = self._stop_reason(member)
            if reason is None:
                continue
            if member.stop_since is None:
                member.stop_since = now
                halted.append(Stop(member=number, reason=reason))
            drained_at = drain_at if member.drained else None
            if now <= (member.stop_since + STOP_GRACE_S if drained_at is None else max(drained_at, member.stop_since)):
                continue
            trainer.kill()
            raise TrainerLost("A trial that had to stop was in the middle of a long epoch: its trainer was killed.")
        if halted:
            trainer.send(Halt(stack=self._first.token, stop=halted))

    def _ask_last_snapshots(self, trainer: Trainer) -> None:
        """Have the members of a draining worker end with their epoch, and leave a checkpoint."""
        ending = {n: m for n, m in self._members.items() if m.stop_since is None and m.snapshot_pending is None}
        wanted = self._ledger.checkpoints.last(ending)
        self._ask_snapshots(trainer, wanted)
        for snapshot in wanted:
            self._members[snapshot.member].drained = True

    def _finish(
        self,
        ended: Sequence[tuple[Running, MemberResult]],
        model: KeptModel | None = None,
        snapshots: Mapping[int, KeptSnapshot] = NOTHING,
    ) -> None:
        """Record members that ended; those whose lease was lost, or that are to be tried elsewhere, are let go.

        `snapshots` are what they left, by trial id.
        """
        recorded: list[tuple[Running, MemberResult]] = []
        returned: list[tuple[Running, MemberResult]] = []
        for member, result in ended:
            (returned if result.stop_reason in ("LEASE_LOST", "FAULTED") else recorded).append((member, result))
        left = [(member, snapshots[member.trial_id]) for member, _ in returned if member.trial_id in snapshots]
        self._ledger.checkpoints.write(left, self._reporting)
        for member, _ in returned:
            self._ledger.give_back(member)
        self._ledger.finish(recorded, self._reporting, model, snapshots, refill=not self._draining)

    def _finish_in_order(self) -> None:
        """Record the members of a deterministic study: which of them ended first was chance."""
        for number in sorted(self._ended):
            member, result, model, snapshots = self._ended.pop(number)
            self._finish([(member, result)], model, snapshots)

    def abandon(self, lost: TrainerLost) -> None:
        """After the loss of the trainer: record what was due, charge a member that was alone, give the others back.

        A member that owes later trials its state has to train again.
        """
        self._ledger.flush(self._reporting, 0)
        self._finish_in_order()
        owing = self._ledger.checkpoints.handed_on(self._unwritten)
        self._members |= {one.member: self._unwritten.pop(one.member)[0] for one in owing}
        for number, (member, result) in list(self._unwritten.items()):
            del self._unwritten[number]
            unwritten = KeptModel(member=number, path="", error="The trainer was lost before it had written the model.")
            self._finish([(member, result)], unwritten)
            self._finish(self._after.pop(number, []))
        for number, member in list(self._members.items()):
            ending = self._stop_reason(member)
            if ending in ("TIMEOUT", "CANCELLED"):
                del self._members[number]
                epochs = len(member.curve)
                stopped = MemberResult(member=number, outcome="stopped", stop_reason=ending, epochs=epochs)
                self._finish([(member, stopped)])
        live = self.live
        for member in live:
            if len(live) > 1 or self._stop_reason(member) is not None:
                self._ledger.give_back(member)
                continue
            self._ledger.charge(member, lost.reason, lost.code, str(lost))
        self._members.clear()


def slots_of(trial: PooledTrial) -> int:
    """How many trials of this one's signature may train at once: itself where it is tried again.

    Of a deterministic study always as many: the program of one member gives other last digits.
    """
    if trial.study.definition.generation is not None:
        return trial.study.definition.generation
    if trial.is_retry:
        return 1
    members = trial.study.family.stack_members
    parallel = trial.study.definition.max_parallel
    return members if parallel is None else min(members, parallel)
