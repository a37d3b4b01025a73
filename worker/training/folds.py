"""Members that are trained several times: on other folds of the data, and with other seeds, one after the other.

Each fold has a stack of its own, in a program with its own data; members go from stack to stack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.domain.instances import Instance, instance_of
from app.domain.study import TrainingSpec
from app.domain.trial import FailureReason
from worker.trainer.protocol import KeepModel, KeptModel, Member, Prepare
from worker.trainer.snapshots import Arrays, UnreadableSnapshot
from worker.training.cache import ProgramCache
from worker.training.loop import StackTrainee
from worker.training.rows import Weights

INSTANCE, KEPT = "instance", ("kept_weights", "kept_statistics", "kept_instance")
"""What a snapshot holds beside the state of the present instance: the model that is kept so far."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """The model of the best instance so far."""

    instance: Instance
    weights: Weights


class FoldedTrainee:
    """The members of a stack over all folds. `stack_of` gives the stack that trains without a fold."""

    def __init__(self, training: TrainingSpec, cache: ProgramCache, stack_of: Callable[[int], StackTrainee]) -> None:
        self._training = training
        self._cache = cache
        self._stack_of = stack_of
        self._stacks: dict[int, StackTrainee] = {0: stack_of(0)}
        self._instances: dict[int, Instance] = {}
        self._kept: dict[int, _Kept] = {}

    @property
    def stacks(self) -> list[StackTrainee]:
        """The stacks of the folds that were trained on."""
        return list(self._stacks.values())

    @property
    def epoch_metrics(self) -> Sequence[str]:
        return (*self._stacks[0].epoch_metrics, "instance")

    @property
    def watched(self) -> Sequence[str]:
        return self._stacks[0].watched

    @property
    def width(self) -> int:
        return self._stacks[0].width

    @property
    def fault(self) -> str | None:
        return self._stacks[0].fault

    @property
    def identity(self) -> str:
        return f"{self._stacks[0].identity} in {self._training.folds} folds, {self._training.repeats} repeats"

    @property
    def out_of_memory(self) -> bool:
        """Whether a member ran out of memory."""
        return any(stack.out_of_memory for stack in self._stacks.values())

    def start(self, member: Member) -> None:
        instance = instance_of(self._training, 0)
        self._stack(instance).start(_seeded(member, instance))
        self._instances[member.member] = instance

    def next_instance(self, member: Member, keep: bool) -> None:
        """Go on with the next fold or repeat, if there is one; with `keep` the model of the present one is kept.

        Raises:
            Refused: the next fold can't be trained on.
        """
        present = self._instances[member.member]
        stack = self._stack(present)
        if keep:
            self._kept[member.member] = _Kept(present, stack.best(member))
        if present.index + 1 < self._training.instances:
            instance = instance_of(self._training, present.index + 1)
            stack.end(member)
            self._stack(instance).start(_seeded(member, instance))
            self._instances[member.member] = instance

    def resume(self, member: Member, arrays: Arrays, *, inherited: bool) -> None:
        if inherited or INSTANCE not in arrays:
            raise UnreadableSnapshot("Expected a snapshot of a trial with folds or repeats.")
        instance = instance_of(self._training, int(arrays[INSTANCE]))
        self._stack(instance).resume(_seeded(member, instance), arrays, inherited=False)
        self._instances[member.member] = instance
        if all(name in arrays for name in KEPT):
            kept = instance_of(self._training, int(arrays[KEPT[2]]))
            self._kept[member.member] = _Kept(kept, (arrays[KEPT[0]], arrays[KEPT[1]]))

    def snapshot(self, members: Sequence[Member]) -> dict[int, Arrays]:
        taken: dict[int, Arrays] = {}
        for stack, mine in self._by_stack(members):
            for number, arrays in stack.snapshot(mine).items():
                more = {INSTANCE: np.array(self._instances[number].index)}
                kept = self._kept.get(number)
                if kept is not None:
                    more |= dict(zip(KEPT, (*kept.weights, np.array(kept.instance.index)), strict=True))
                taken[number] = {**arrays, **more}
        return taken

    def train_epoch(self, members: Sequence[Member]) -> dict[int, dict[str, float] | Exception]:
        metrics: dict[int, dict[str, float] | Exception] = {}
        for stack, mine in self._by_stack(members):
            for number, told in stack.train_epoch(mine).items():
                index = float(self._instances[number].index)
                metrics[number] = told if isinstance(told, Exception) else {**told, "instance": index}
        return metrics

    def select(self, member: Member) -> None:
        self._stack(self._instances[member.member]).select(member)

    def result_metrics(self, member: Member) -> Mapping[str, float]:
        return self._stacks[0].result_metrics(member)

    def keep(
        self, member: Member, model: KeepModel, selected_epoch: int, history: Sequence[Mapping[str, float]]
    ) -> Callable[[], KeptModel]:
        kept = self._kept[member.member]
        more = {"fold": kept.instance.fold, "repeat": kept.instance.repeat}
        first = next((e for e, told in enumerate(history) if told[INSTANCE] == kept.instance.index), 0)
        return self._stack(kept.instance).keeping(member, kept.weights, model, selected_epoch, history, more, first)

    def end(self, member: Member) -> None:
        instance = self._instances.pop(member.member, None)
        if instance is not None:
            self._stack(instance).end(member)
        self._kept.pop(member.member, None)

    def prepare(self, wanted: Prepare) -> None:
        self._stacks[0].prepare(wanted)

    def failure_reason(self, error: Exception) -> FailureReason:
        return self._stacks[0].failure_reason(error)

    def _stack(self, instance: Instance) -> StackTrainee:
        """The stack of an instance's fold, whose program is compiled where it is the first one of it.

        Raises:
            Refused: it can't be trained on.
            Exception: its program can't be compiled, in words.
        """
        if instance.fold not in self._stacks:
            try:
                self._stacks[instance.fold] = self._stack_of(instance.fold)
            except Exception as error:
                told = self._cache.faults.judged(error)
                if told is error:
                    raise
                raise told from error
        return self._stacks[instance.fold]

    def _by_stack(self, members: Sequence[Member]) -> list[tuple[StackTrainee, list[Member]]]:
        """The members of each fold's stack."""
        by_fold: dict[int, list[Member]] = {}
        for member in members:
            instance = self._instances[member.member]
            by_fold.setdefault(instance.fold, []).append(_seeded(member, instance))
        return [(self._stacks[fold], mine) for fold, mine in sorted(by_fold.items())]


def _seeded(member: Member, instance: Instance) -> Member:
    return member.model_copy(update={"seed": instance.seed(member.seed)})
