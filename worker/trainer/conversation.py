"""The trainer's side of a stack's conversation, whatever is trained: selection, early stopping, verdicts, results.

`converse` runs the conversation that `worker.trainer.protocol` documents. A `Trainee` does the work between the
messages: it trains members for an epoch and writes their models. No TensorFlow here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from app.domain.trial import FailureReason
from worker.progress import Progress, failed, in_brief, not_finite, refused, tried_elsewhere
from worker.trainer.protocol import (
    EpochDone,
    EpochReport,
    Faulted,
    Halt,
    Join,
    Keep,
    KeepModel,
    Kept,
    KeptModel,
    KeptSnapshot,
    Member,
    MemberResult,
    MembersDone,
    Prepare,
    Request,
    Resumed,
    ResumedMember,
    StopReason,
    TakeSnapshot,
    TakeSnapshots,
    TrainStack,
    Verdict,
)
from worker.trainer.resume import Snapshots
from worker.trainer.snapshots import Shelf, UnreadableSnapshot
from worker.trainer.trainable import Channel, Refused, Trainee, TryElsewhere

M = TypeVar("M", Verdict, Keep)
NextInstance = Callable[[Member, bool], None]


def converse(
    request: TrainStack,
    channel: Channel,
    trainee: Trainee,
    *,
    select_last: bool,
    preparing_s: float = 0.0,
    shelf: Shelf | None = None,
    next_instance: NextInstance | None = None,
) -> None:
    """Train a stack to its end, all of its messages but the first.

    `preparing_s` is the time that was spent before, on the device, and is shared by the first members. `shelf` has the
    snapshots that members of earlier stacks handed on. `next_instance` is needed where members are trained several
    times: it lets one go on with its next fold or repeat, and with True keeps the model of the one that is through.
    """
    snapshots = Snapshots(trainee, Shelf() if shelf is None else shelf)
    Conversation(request, channel, trainee, snapshots, next_instance, select_last=select_last).run(preparing_s)


class Conversation:
    """The members of one stack from their start to their results; `worker.trainer.protocol` has their order."""

    def __init__(
        self,
        request: TrainStack,
        channel: Channel,
        trainee: Trainee,
        snapshots: Snapshots,
        next_instance: NextInstance | None,
        *,
        select_last: bool,
    ) -> None:
        self._snapshots = snapshots
        self._next_instance = next_instance
        self._request = request
        self._channel = channel
        self._trainee = trainee
        self._select_last = select_last
        self._running: dict[int, Progress] = {}
        self._joining: list[Member] = list(request.members)
        self._stops: dict[int, StopReason] = {}
        self._writer: ThreadPoolExecutor | None = None
        self._writing: list[Future[Kept]] = []
        self._wanted: list[TakeSnapshot] = []
        self._has_told_fault = False

    def run(self, preparing_s: float) -> None:
        """Train until nobody is left."""
        self._hear()  # many may have joined while the program was compiled
        self._start(preparing_s)
        while self._running:
            self._train_epoch()
            if self._request.judged:
                self._stops |= {stop.member: stop.reason for stop in self._expect(Verdict).stop}
            self._hear()
            self._close_instances()
            self._take_snapshots()
            self._settle([(p, self._result(p)) for p in self._running.values() if self._has_ended(p)])
            self._start()
        self._take_snapshots()
        self._tell_written(wait=True)

    def _start(self, preparing_s: float = 0.0) -> None:
        """Start the members that joined; those that can't be trained end at once, and others may take their places."""
        while self._joining:
            joining, self._joining = self._joining, []
            ended: list[tuple[Progress, MemberResult]] = []
            resumed: list[ResumedMember] = []
            for member in joining:
                progress = self._progress(member)
                try:
                    resumed += self._snapshots.start(progress)
                except Refused as error:
                    ended.append((progress, refused(member.member, str(error))))
                except UnreadableSnapshot as error:
                    ended.append((progress, failed(progress, FailureReason.EXCEPTION, error)))
                except Exception as error:  # noqa: BLE001 - it goes on in a fold whose program may not compile
                    progress.error = error
                    ended.append((progress, self._result(progress)))
                else:
                    self._running[member.member] = progress
                    progress.device_seconds += preparing_s / len(joining)
                    if progress.epochs and self._has_ended(progress):
                        ended.append((progress, self._result(progress)))
            preparing_s = 0.0
            if resumed:
                self._send(Resumed(stack=self._request.stack, members=resumed))
            self._settle(ended)

    def _progress(self, member: Member) -> Progress:
        training = self._request.training
        return Progress(
            member,
            self._request.objectives,
            training.early_stopping,
            self._select_last,
            training.instances,
            self._request.gains,
        )

    def _train_epoch(self) -> None:
        running = [self._running[number] for number in sorted(self._running)]
        started = time.perf_counter()
        metrics = self._epoch_metrics([p.member for p in running])
        seconds = time.perf_counter() - started
        reports = []
        for progress in running:
            mine = metrics[progress.member.member]
            if isinstance(mine, Exception):
                progress.error = mine
                continue
            told = {**mine, "seconds": seconds}
            epoch = progress.epochs
            broken = [f"{name}={told[name]}" for name in self._trainee.watched if not math.isfinite(told[name])]
            if broken:
                progress.failure = f"Expected finite metrics. Received: {', '.join(broken)} in epoch {progress.epochs}"
            if progress.record(told, seconds=seconds, members=len(running)) and not broken:
                self._trainee.select(progress.member)
            reports.append(
                EpochReport(
                    member=progress.member.member,
                    epoch=epoch,
                    metrics=told,
                    so_far=self._so_far(progress, told),
                    instance=progress.instance,
                    instance_result=self._instance_result(progress),
                )
            )
        self._send(EpochDone(stack=self._request.stack, reports=reports, width=self._trainee.width))

    def _epoch_metrics(self, members: Sequence[Member]) -> Mapping[int, Mapping[str, float] | Exception]:
        """The metrics of an epoch of the members, or what failed them.

        Raises:
            Exception: it failed several at once: trained alone, each will show whether it was the cause.
        """
        try:
            return self._trainee.train_epoch(members)
        except Exception as error:
            if len(members) > 1:
                raise
            return {members[0].member: error}

    def _so_far(self, progress: Progress, metrics: Mapping[str, float]) -> dict[str, float]:
        """What the result would add to an epoch's `metrics`, where pruning looks at more than the first objective."""
        if not self._request.judged or len(self._request.objectives) == 1:
            return {}
        return progress.with_result(metrics, self._trainee.result_metrics(progress.member))

    def _has_ended(self, progress: Progress) -> bool:
        asked = progress.failure is not None or progress.error is not None or progress.member.member in self._stops
        return asked or self._is_through(progress)

    def _is_through(self, progress: Progress) -> bool:
        """Whether nothing is left to train."""
        return progress.is_through(self._epochs_of(progress))

    def _epochs_of(self, progress: Progress) -> int:
        return progress.member.epochs or self._request.training.epochs

    def _instance_result(self, progress: Progress) -> dict[str, float] | None:
        """The result of a fold or repeat that this epoch was the last one of."""
        if progress.instances == 1 or not progress.instance_is_through(self._epochs_of(progress)):
            return None
        return progress.instance_result(self._trainee.result_metrics(progress.member)) or None

    def _close_instances(self) -> None:
        """Let members whose fold or repeat is through go on with the next one."""
        if self._next_instance is None:
            return
        for progress in self._running.values():
            broken = progress.failure is not None or progress.error is not None
            if broken or not progress.instance_is_through(self._epochs_of(progress)):
                continue
            keep = progress.close_instance(self._trainee.result_metrics(progress.member))
            if self._stops.get(progress.member.member) != "PRUNED":
                try:
                    self._next_instance(progress.member, keep)
                except Exception as error:  # noqa: BLE001 - its program may not compile: the member fails, in words
                    progress.error = error

    def _result(self, progress: Progress) -> MemberResult:
        """How a member ended: its own failure comes first, then the verdict."""
        member = progress.member.member
        if isinstance(progress.error, TryElsewhere):
            return tried_elsewhere(progress)
        if progress.error is not None:
            return failed(progress, self._trainee.failure_reason(progress.error), progress.error)
        if progress.failure is not None:
            return not_finite(progress, progress.failure)
        result = progress.result(self._trainee.result_metrics(progress.member))
        # One that a draining worker gives back in its last epoch has its result: nothing is left to go on with.
        if member in self._stops and not (self._stops[member] == "LEASE_LOST" and self._is_through(progress)):
            return result.model_copy(update={"outcome": "stopped", "stop_reason": self._stops[member]})
        return result

    def _settle(self, ended: Sequence[tuple[Progress, MemberResult]]) -> None:
        """Report the members that ended, where any did, and begin to write the models that the supervisor wants."""
        if not ended:
            return
        for progress, _ in ended:
            self._running.pop(progress.member.member, None)
        self._send(MembersDone(stack=self._request.stack, results=[result for _, result in ended]))
        keep = self._expect(Keep)
        by_member = {progress.member.member: progress for progress, _ in ended}
        self._write(
            [_keeping(self._trainee, by_member.get(model.member), model) for model in keep.models],
            self._snapshots.taken(keep.snapshots, by_member),
        )
        for progress, _ in ended:
            self._trainee.end(progress.member)
        self._joining += keep.join

    def _take_snapshots(self) -> None:
        """Take the snapshots that the supervisor asked for, and begin to write them."""
        wanted, self._wanted = self._wanted, []
        self._write([], self._snapshots.taken(wanted, self._running))

    def _write(
        self, models: Sequence[Callable[[], KeptModel]], snapshots: Sequence[Callable[[], KeptSnapshot]]
    ) -> None:
        """Make these calls on the writer's thread; what they give is told together."""
        if not models and not snapshots:
            return

        def work() -> Kept:
            written = [write() for write in models]
            return Kept(stack=self._request.stack, models=written, snapshots=[write() for write in snapshots])

        self._writer = self._writer or ThreadPoolExecutor(1, "write")
        self._writing.append(self._writer.submit(work))

    def _tell_written(self, *, wait: bool = False) -> None:
        """Tell of what is written by now, or of all."""
        while self._writing and (wait or self._writing[0].done()):
            self._send(self._writing.pop(0).result())
        if wait and self._writer is not None:
            self._writer.shutdown()

    def _send(self, message: Resumed | EpochDone | MembersDone | Kept) -> None:
        """Send a message; before it, once, that the framework failed: whoever hears of an end knows who may follow."""
        fault = None if self._has_told_fault else self._trainee.fault
        if fault is not None:
            self._has_told_fault = True
            self._channel.send(Faulted(problem=fault))
        self._channel.send(message)

    def _hear(self) -> None:
        """Take in what the supervisor sent unasked, and tell what was written meanwhile."""
        self._tell_written()
        while self._channel.poll(0.0):
            self._note(self._channel.receive())

    def _expect(self, kind: type[M]) -> M:
        """Wait for an answer, and take in what comes before it."""
        while True:
            message = self._channel.receive()
            if isinstance(message, kind):
                return message
            self._note(message)

    def _note(self, message: Request) -> None:
        if isinstance(message, Join):
            self._joining += message.members
        elif isinstance(message, Halt):
            if message.stack == self._request.stack:  # one of an earlier stack came too late
                self._stops |= {stop.member: stop.reason for stop in message.stop}
        elif isinstance(message, TakeSnapshots):
            if message.stack == self._request.stack:
                self._wanted += message.snapshots
        elif isinstance(message, Prepare):
            self._trainee.prepare(message)
        else:
            raise TypeError(
                f"Expected an answer, join, halt, take_snapshots or prepare. Received: {type(message).__name__}"
            )


def refuse_all(request: TrainStack, channel: Channel, message: str) -> None:
    """The whole conversation of a stack that can't be trained."""
    _end_all(request, channel, lambda member: refused(member.member, message))


def fail_all(request: TrainStack, channel: Channel, reason: FailureReason, error: Exception) -> None:
    """The whole conversation of a stack whose preparation failed."""
    _end_all(request, channel, lambda member: failed(Progress(member, request.objectives, None, True), reason, error))


def give_all_back(request: TrainStack, channel: Channel, fault: str) -> None:
    """The whole conversation of a stack that is not trained here, after an error of the framework's own."""
    channel.send(Faulted(problem=fault))
    _end_all(request, channel, lambda member: tried_elsewhere(Progress(member, request.objectives, None, True)))


def _end_all(request: TrainStack, channel: Channel, end: Callable[[Member], MemberResult]) -> None:
    """End all members, and all that take their places, with the same result."""
    members = list(request.members)
    while members:
        channel.send(MembersDone(stack=request.stack, results=[end(member) for member in members]))
        members = []
        while not isinstance(message := channel.receive(), Keep):
            if isinstance(message, Join):
                members += message.members
        members += message.join


def _keeping(trainee: Trainee, progress: Progress | None, model: KeepModel) -> Callable[[], KeptModel]:
    """What writes a member's model, or tells why it can't: a full disk must not lose the results of the stack."""
    if progress is None or progress.model_epoch is None:
        problem = f"Expected a member that ended in this round with a selected epoch. Received: {model.member}"
        return lambda: KeptModel(member=model.member, path=model.path, error=problem)
    write = trainee.keep(progress.member, model, progress.model_epoch, progress.history)

    def attempt() -> KeptModel:
        try:
            return write()
        except Exception as error:  # noqa: BLE001 - told in the trial's log
            problem = f"{type(error).__name__}: {in_brief(error)}"
            return KeptModel(member=model.member, path=model.path, error=problem)

    return attempt
