"""What trains the members of a stack, and what it talks through: a new kind of trainer is one more `Trainee`.

No TensorFlow here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from app.domain.metrics import spreads
from app.domain.trial import FailureReason
from worker.trainer.protocol import (
    EpochDone,
    Faulted,
    KeepModel,
    Kept,
    KeptModel,
    Member,
    MembersDone,
    Noted,
    Prepare,
    Request,
    Resumed,
    TrainStack,
)
from worker.trainer.snapshots import Arrays


class Refused(Exception):
    """Members that can't be trained as they are; the message says why in words."""


class Explained(Exception):
    """What failed a member, in words, with its cause as `__cause__`; `code` is what it is called."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class TryElsewhere(Exception):
    """A member failed in a trainer that had failed another way before: perhaps it wouldn't, in another one."""


class Channel(Protocol):
    """The pipe to the supervisor. Its calls raise `ChannelBroken` once the other end is gone."""

    def send(self, message: Noted | Resumed | EpochDone | MembersDone | Kept | Faulted) -> None:
        """Send one message."""
        ...

    def poll(self, timeout_s: float) -> bool:
        """Whether a message comes within `timeout_s` seconds."""
        ...

    def receive(self) -> Request:
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

    @property
    def width(self) -> int:
        """How many members train at once without waiting for one another."""
        ...

    @property
    def fault(self) -> str | None:
        """The first error of the framework's own in this trainer, in words; None where there was none."""
        ...

    def start(self, member: Member) -> None:
        """Make ready to train a member.

        Raises:
            Refused: this member can't be trained.
        """
        ...

    @property
    def identity(self) -> str:
        """What snapshots fit: those of members that had the same."""
        ...

    def resume(self, member: Member, arrays: Arrays, *, inherited: bool) -> None:
        """Make ready to train a member from where `snapshot` gave `arrays`: of itself, or `inherited` from another.

        Raises:
            Refused: this member can't be trained.
            UnreadableSnapshot: the arrays don't fit; nothing was changed.
        """
        ...

    def snapshot(self, members: Sequence[Member]) -> Mapping[int, Arrays]:
        """Copies of everything that these members need to go on, by `member`."""
        ...

    def train_epoch(self, members: Sequence[Member]) -> Mapping[int, Mapping[str, float] | Exception]:
        """Train these members for one epoch; by `member` the metrics, without `seconds`, or what failed it alone.

        `TryElsewhere` in its place has the member given back.
        """
        ...

    def select(self, member: Member) -> None:
        """Remember the member as it is now: its last epoch is the selected one so far."""
        ...

    def result_metrics(self, member: Member) -> Mapping[str, float]:
        """What comes with the member's result, beyond what the conversation knows itself."""
        ...

    def keep(
        self, member: Member, model: KeepModel, selected_epoch: int, history: Sequence[Mapping[str, float]]
    ) -> Callable[[], KeptModel]:
        """Take the selected epoch's model aside; the call that writes it is made on another thread."""
        ...

    def end(self, member: Member) -> None:
        """Forget a member: its slot is free."""
        ...

    def prepare(self, wanted: Prepare) -> None:
        """Get ready, beside what trains, for trials to come."""
        ...

    def failure_reason(self, error: Exception) -> FailureReason:
        """Why an error of training fails a member."""
        ...


def check_metrics(request: TrainStack, epoch_metrics: Collection[str], result_metrics: Collection[str]) -> None:
    """Check that all metrics that a study asks for are reported.

    Raises:
        Refused: one that isn't.
    """
    known = [*epoch_metrics, *result_metrics, *(spreads(epoch_metrics) if request.training.instances > 1 else ())]
    for objective in request.objectives:
        if objective.metric not in known:
            raise Refused(f"Expected an objective among: {', '.join(known)}. Received: {objective.metric!r}")
    rule = request.training.early_stopping
    if rule is not None and rule.metric not in epoch_metrics:
        raise Refused(f"Expected early stopping by one of: {', '.join(epoch_metrics)}. Received: {rule.metric!r}")
