"""The trainer's side of a stack's conversation, whatever is trained: selection, early stopping, verdicts, results.

`converse` runs the conversation that `worker.protocol` documents. A `Trainee` does the work between the messages: it
trains members for an epoch and writes their models. No TensorFlow here.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from app.domain.study import EarlyStopping, Objective
from app.domain.trial import FailureReason
from worker.protocol import (
    EpochDone,
    EpochReport,
    Keep,
    KeepModel,
    Kept,
    KeptModel,
    Member,
    MemberResult,
    MembersDone,
    Shutdown,
    StopReason,
    TrainStack,
    Verdict,
)

M = TypeVar("M", Verdict, Keep)

RESULT_METRICS = ("parameter_count", "train_seconds", "generalization_gap")
"""What comes with a member's result rather than with each epoch."""
HIGHER_IS_BETTER = ("accuracy", "val_accuracy")
"""Metrics that grow as a model gets better; all others shrink."""


class Refused(Exception):
    """Members that can't be trained as they are; the message says why in words."""


class Channel(Protocol):
    """The pipe to the supervisor. Both calls block, and raise `EOFError` or `OSError` once the other end is gone."""

    def send(self, message: EpochDone | MembersDone | Kept) -> None:
        """Send one message."""
        ...

    def receive(self) -> TrainStack | Verdict | Keep | Shutdown:
        """Wait for the next message."""
        ...


class Trainee(Protocol):
    """What trains the members of one stack."""

    @property
    def epoch_metrics(self) -> Collection[str]:
        """The metrics that every epoch reports, `seconds` included."""
        ...

    @property
    def watched(self) -> Collection[str]:
        """The epoch metrics that fail a member (NON_FINITE) as soon as one is not finite."""
        ...

    def start(self, member: Member) -> None:
        """Make ready to train a member.

        Raises:
            Refused: this member can't be trained.
        """
        ...

    def train_epoch(self, members: Sequence[Member]) -> Mapping[int, Mapping[str, float]]:
        """Train these members for one epoch; the metrics of each by its `member`, without `seconds`."""
        ...

    def select(self, member: Member) -> None:
        """Remember the member as it is now: its last epoch is the selected one so far."""
        ...

    def result_metrics(self, member: Member) -> Mapping[str, float]:
        """What comes with the member's result, beyond what the conversation knows itself."""
        ...

    def keep(self, member: Member, model: KeepModel, selected_epoch: int) -> KeptModel:
        """Write the selected epoch's model."""
        ...

    def failure_reason(self, error: Exception) -> FailureReason:
        """Why an error of training fails the members."""
        ...


@dataclass
class Progress:
    """How far one member is: its epochs, the one selected so far, and how it ended where it did."""

    member: Member
    objectives: Sequence[Objective]
    early_stopping: EarlyStopping | None
    select_last: bool
    epochs: int = 0
    selected_epoch: int | None = None
    selected: dict[str, float] = field(default_factory=dict)
    train_seconds: float = 0.0
    device_seconds: float = 0.0
    failure: str | None = None
    _best: float = math.inf
    _stopping_best: float = math.inf
    _stale_epochs: int = 0

    def record(self, metrics: dict[str, float], *, seconds: float, members: int) -> bool:
        """Take in an epoch that `members` trained in `seconds` together; whether it is the selected one now."""
        epoch, self.epochs = self.epochs, self.epochs + 1
        self.train_seconds += seconds
        self.device_seconds += seconds / members
        self._watch(metrics)
        objective = next((o for o in self.objectives if o.metric in metrics), None)
        if not self.select_last and objective is not None:
            value = metrics[objective.metric] * _sign(objective.direction == "maximize")
            if not value < self._best:
                return False
            self._best = value
        self.selected_epoch, self.selected = epoch, metrics
        return True

    @property
    def stops_early(self) -> bool:
        """Whether early stopping ends the member now."""
        return (
            self.early_stopping is not None
            and self._stale_epochs > 0
            and self._stale_epochs >= self.early_stopping.patience
        )

    def _watch(self, metrics: Mapping[str, float]) -> None:
        rule = self.early_stopping
        if rule is None:
            return
        directions = {o.metric: o.direction == "maximize" for o in self.objectives}
        value = metrics[rule.metric] * _sign(directions.get(rule.metric, rule.metric in HIGHER_IS_BETTER))
        if value < self._stopping_best - rule.min_delta:
            self._stopping_best, self._stale_epochs = value, 0
        else:
            self._stale_epochs += 1

    def result(self, trainee: Trainee) -> MemberResult:
        """The member's result, without how it ended."""
        metrics = dict(self.selected)
        if metrics:
            metrics.update(trainee.result_metrics(self.member), train_seconds=self.train_seconds)
            gap = generalization_gap(metrics, self.objectives[0].metric)
            if gap is not None:
                metrics["generalization_gap"] = gap
        return MemberResult(
            member=self.member.member,
            outcome="complete",
            selected_epoch=self.selected_epoch,
            epochs=self.epochs,
            metrics=metrics,
            values=[metrics[o.metric] for o in self.objectives] if metrics else [],
            device_seconds=self.device_seconds,
        )


def generalization_gap(metrics: Mapping[str, float], objective: str) -> float | None:
    """How much worse `objective`'s metric is on validation than on training data; positive means over-fitting.

    For an objective without such a pair (`parameter_count`) the gap of the loss; None where there is no loss either.
    """
    for name in (objective.removeprefix("val_"), "loss"):
        if name in metrics and f"val_{name}" in metrics:
            worse = metrics[f"val_{name}"] - metrics[name]
            return -worse if name in HIGHER_IS_BETTER else worse
    return None


def check_metrics(request: TrainStack, epoch_metrics: Collection[str], result_metrics: Collection[str]) -> None:
    """Check that all metrics that a study asks for are reported.

    Raises:
        Refused: one that isn't.
    """
    for objective in request.objectives:
        known = [*epoch_metrics, *result_metrics]
        if objective.metric not in known:
            raise Refused(f"Expected an objective among: {', '.join(known)}. Received: {objective.metric!r}")
    rule = request.training.early_stopping
    if rule is not None and rule.metric not in epoch_metrics:
        raise Refused(f"Expected early stopping by one of: {', '.join(epoch_metrics)}. Received: {rule.metric!r}")


def converse(
    request: TrainStack, channel: Channel, trainee: Trainee, *, select_last: bool, preparing_s: float = 0.0
) -> None:
    """Train a stack to its end, all of its messages but the first.

    `preparing_s` is the time that was spent before, on the device, and is shared by the members.
    """
    running: list[Progress] = []
    ended: list[tuple[Progress, MemberResult]] = []
    for member in request.members:
        progress = Progress(member, request.objectives, request.training.early_stopping, select_last)
        progress.device_seconds = preparing_s / len(request.members)
        try:
            trainee.start(member)
        except Refused as error:
            ended.append((progress, refused(member.member, str(error))))
        else:
            running.append(progress)
    _settle(request, channel, trainee, ended)
    while running:
        try:
            reports = _train_epoch(trainee, running)
        except Exception as error:  # noqa: BLE001 - whatever a model does fails its members, never the trainer
            _settle(request, channel, trainee, [(p, failed(p, trainee.failure_reason(error), error)) for p in running])
            return
        channel.send(EpochDone(stack=request.stack, reports=reports))
        verdict = _expect(channel, Verdict)
        stops = {stop.member: stop.reason for stop in verdict.stop}
        ended = [(p, _result(p, trainee, stops)) for p in running if _has_ended(p, stops, request.training.epochs)]
        running = [p for p in running if not _has_ended(p, stops, request.training.epochs)]
        _settle(request, channel, trainee, ended)


def refuse_all(request: TrainStack, channel: Channel, message: str) -> None:
    """The whole conversation of a stack that can't be trained."""
    channel.send(MembersDone(stack=request.stack, results=[refused(m.member, message) for m in request.members]))
    _expect(channel, Keep)


def fail_all(request: TrainStack, channel: Channel, reason: FailureReason, error: Exception) -> None:
    """The whole conversation of a stack whose preparation failed."""
    blank = [Progress(m, request.objectives, None, select_last=True) for m in request.members]
    channel.send(MembersDone(stack=request.stack, results=[failed(p, reason, error) for p in blank]))
    _expect(channel, Keep)


def refused(member: int, message: str) -> MemberResult:
    """The result of a member that can't be trained as it is."""
    return MemberResult(
        member=member, outcome="failed", reason=FailureReason.REFUSED, error_code="REFUSED", message=message
    )


def failed(progress: Progress, reason: FailureReason, error: Exception) -> MemberResult:
    """The result of a member that an error ended."""
    return MemberResult(
        member=progress.member.member,
        outcome="failed",
        epochs=progress.epochs,
        device_seconds=progress.device_seconds,
        reason=reason,
        error_code=type(error).__name__,
        message=str(error) or type(error).__name__,
        traceback="".join(traceback.format_exception(error)),
    )


def _train_epoch(trainee: Trainee, running: Sequence[Progress]) -> list[EpochReport]:
    start = time.perf_counter()
    metrics = trainee.train_epoch([p.member for p in running])
    seconds = time.perf_counter() - start
    reports = []
    for progress in running:
        mine = {**metrics[progress.member.member], "seconds": seconds}
        broken = [f"{name}={mine[name]}" for name in trainee.watched if not math.isfinite(mine[name])]
        if broken:
            progress.failure = f"Expected finite metrics. Received: {', '.join(broken)} in epoch {progress.epochs}"
        reports.append(EpochReport(member=progress.member.member, epoch=progress.epochs, metrics=mine))
        if progress.record(mine, seconds=seconds, members=len(running)) and not broken:
            trainee.select(progress.member)
    return reports


def _has_ended(progress: Progress, stops: Mapping[int, StopReason], epochs: int) -> bool:
    asked = progress.failure is not None or progress.member.member in stops
    return asked or progress.epochs >= epochs or progress.stops_early


def _result(progress: Progress, trainee: Trainee, stops: Mapping[int, StopReason]) -> MemberResult:
    """How a member ended: its own failure comes first, then the verdict."""
    member = progress.member.member
    if progress.failure is not None:
        return MemberResult(
            member=member,
            outcome="failed",
            epochs=progress.epochs,
            device_seconds=progress.device_seconds,
            reason=FailureReason.NON_FINITE,
            error_code="NON_FINITE",
            message=progress.failure,
        )
    result = progress.result(trainee)
    if member in stops:
        return result.model_copy(update={"outcome": "stopped", "stop_reason": stops[member]})
    return result


def _settle(
    request: TrainStack, channel: Channel, trainee: Trainee, ended: Sequence[tuple[Progress, MemberResult]]
) -> None:
    """Report the members that ended, where any did, and write the models that the supervisor wants."""
    if not ended:
        return
    channel.send(MembersDone(stack=request.stack, results=[result for _, result in ended]))
    wanted = _expect(channel, Keep).models
    if not wanted:
        return
    by_member = {progress.member.member: progress for progress, _ in ended}
    channel.send(Kept(stack=request.stack, models=[_keep(trainee, by_member.get(m.member), m) for m in wanted]))


def _keep(trainee: Trainee, progress: Progress | None, model: KeepModel) -> KeptModel:
    if progress is None or progress.selected_epoch is None:
        problem = f"Expected a member that ended in this round with a selected epoch. Received: {model.member}"
        return KeptModel(member=model.member, path=model.path, error=problem)
    try:
        return trainee.keep(progress.member, model, progress.selected_epoch)
    except Exception as error:  # noqa: BLE001 - a full disk must not lose the results of the stack
        return KeptModel(member=model.member, path=model.path, error=f"{type(error).__name__}: {error}")


def _sign(maximize: bool) -> int:
    return -1 if maximize else 1


def _expect(channel: Channel, kind: type[M]) -> M:
    message = channel.receive()
    if not isinstance(message, kind):
        raise TypeError(f"Expected a {kind.__name__}. Received: {type(message).__name__}")
    return message
