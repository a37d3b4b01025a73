"""Training a stack: the conversation's trainee over compiled programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from app.domain.class_weights import balanced_weights, given_weights
from app.domain.families import Scalar
from app.domain.json import dumps
from app.domain.study import ClassWeights
from app.domain.trial import FailureReason
from worker.progress import RESULT_METRICS
from worker.trainer.conversation import converse, fail_all, give_all_back, refuse_all
from worker.trainer.protocol import DataNote, Faulted, KeepModel, KeptModel, Member, Noted, Prepare, TrainStack
from worker.trainer.snapshots import Arrays, Shelf
from worker.trainer.trainable import Channel, Explained, Refused, TryElsewhere, check_metrics
from worker.training.cache import ProgramCache
from worker.training.data import Fold, Split, inputs_of
from worker.training.determinism import deterministic_operations
from worker.training.export import exported_model, save_model, test_metrics
from worker.training.extra_files import Run, write_beside
from worker.training.faults import is_fault
from worker.training.memory import PeakMemory, check_fits
from worker.training.network_registry import Networks
from worker.training.program import Program
from worker.training.rows import Weights, arrays_of, restored
from worker.training.signature import Signature, filled, structural_signature, structure_of
from worker.training.slots import MemberMetrics, Slots
from worker.training.wording import essence

if TYPE_CHECKING:
    from worker.training.folds import FoldedTrainee

SCORES = {"classification": "accuracy", "regression": "mae"}
"""The metric that people read, by task."""
BLOCKS = 2
"""Blocks of members that a program is kept busy with at least: one trains while the ends of another are recorded."""


def epoch_metrics(signature: Signature) -> tuple[str, ...]:
    """The metrics that each epoch of a stack reports.

    Raises:
        Refused: an unknown data set, or one that the family can't take.
    """
    score = SCORES[signature.split().info.task]
    own = [name for metric in signature.metrics.names for name in (metric, f"val_{metric}")]
    return ("loss", "val_loss", score, f"val_{score}", *own, "learning_rate", "seconds")


def train_stack(
    request: TrainStack,
    channel: Channel,
    cache: ProgramCache,
    lanes: ThreadPoolExecutor | None = None,
    shelf: Shelf | None = None,
    *,
    networks: Networks,
) -> None:
    """Train a stack of one of `networks`: all of its conversation after `TrainStack`.

    `lanes` train blocks of members side by side, `shelf` holds snapshots from stack to stack.

    What goes wrong fails members, in words, and never the trainer; only a broken pipe raises.

    Raises:
        ChannelBroken: the supervisor is gone.
        TypeError: the supervisor sent a message out of turn.
    """
    with deterministic_operations(wanted=request.training.deterministic):
        _train_stack(request, channel, cache, lanes, shelf, networks)


def _train_stack(
    request: TrainStack,
    channel: Channel,
    cache: ProgramCache,
    lanes: ThreadPoolExecutor | None,
    shelf: Shelf | None,
    networks: Networks,
) -> None:
    started, peak = time.perf_counter(), PeakMemory()
    earlier = cache.faults.words
    if earlier is not None:  # of the second thread, after the last stack had ended
        give_all_back(request, channel, earlier)
        return
    try:
        signature = structural_signature(request, networks)
        check_metrics(request, epoch_metrics(signature), RESULT_METRICS)
        check_fits(signature, request.memory_mb)
        cache.memory_mb = request.memory_mb
        stack_of = partial(_stack_of, request, channel, signature, cache, lanes, peak)
        trainee: StackTrainee | FoldedTrainee = stack_of(0)
        if request.training.instances > 1:
            from worker.training.folds import FoldedTrainee

            trainee = FoldedTrainee(request.training, cache, stack_of)
    except Refused as error:
        refuse_all(request, channel, str(error))
        return
    except Exception as error:  # noqa: BLE001 - building a program may exhaust the device or meet a bug of ours
        told, fault = cache.faults.judged(error), cache.faults.words
        if isinstance(told, TryElsewhere):
            give_all_back(request, channel, str(fault))
            return
        if fault is not None:
            channel.send(Faulted(problem=fault))
        fail_all(request, channel, _reason(told), told)
        return
    last = request.training.select_epoch == "last"
    preparing_s = time.perf_counter() - started
    go_on = None if isinstance(trainee, StackTrainee) else trainee.next_instance
    converse(request, channel, trainee, select_last=last, preparing_s=preparing_s, shelf=shelf, next_instance=go_on)
    for stack in trainee.stacks:
        cache.note(stack.program)
    if trainee.out_of_memory:
        cache.clear()


def _stack_of(
    request: TrainStack,
    channel: Channel,
    signature: Signature,
    cache: ProgramCache,
    lanes: ThreadPoolExecutor | None,
    peak: PeakMemory,
    fold: int,
) -> StackTrainee:
    """A stack without members, in a program that is compiled, which holds out one of the folds where there are any.

    What the study's owner should know of its data is told.

    Raises:
        Refused: the data set or the network is impossible.
    """
    training = request.training
    signature = replace(signature, fold=Fold(fold, training.folds))
    weights = class_weights(training.class_weights, signature.split())
    if training.deterministic:
        program = cache.fixed(signature, request.slots)
    else:
        program = cache.program(signature, request.slots, request.expected)
    program = _compiled(program, cache, may_differ=not training.deterministic)
    if program.split.warnings:
        notes = [DataNote(code=warning.code, message=warning.message) for warning in program.split.warnings]
        channel.send(Noted(stack=request.stack, notes=notes))
    return StackTrainee(request, program, cache, lanes, peak, weights)


def _compiled(program: Program, cache: ProgramCache, *, may_differ: bool) -> Program:
    """The program, compiled; where that fails and it `may_differ`, the plainest of its signature."""
    try:
        program.compile()
    except Exception as error:  # not every graph compiles, and memory may be short: the plain form says more
        if not may_differ:
            raise
        plainest = cache.give_up(program)
        try:
            plainest.compile()
        except Exception:
            if error is cache.faults.first:  # what came after it may be its consequence
                raise error from None
            raise
        return plainest
    return program


def prepare(wanted: Prepare, cache: ProgramCache, networks: Networks) -> None:
    """Compile ahead what a stack to come will need; what can't be trained is told when it comes."""
    if wanted.family != "function":
        try:
            signature = replace(structural_signature(wanted, networks), fold=Fold(0, wanted.training.folds))
            check_fits(signature, wanted.memory_mb)
            cache.prepare(signature, wanted.slots, wanted.expected, fixed=wanted.training.deterministic)
        except Exception:  # noqa: BLE001 - told to the trial, in words, once it is there
            return


class StackTrainee:
    """The members of a stack in the slots of a program: each takes the lowest free one, so that blocks stay full."""

    def __init__(
        self,
        request: TrainStack,
        program: Program,
        cache: ProgramCache,
        lanes: ThreadPoolExecutor | None,
        peak: PeakMemory,
        weights: Sequence[float],
    ) -> None:
        self._request = request
        self._cache = cache
        self._lanes = lanes
        self._slots = Slots(program, lanes)
        self._most = request.slots
        self._training = request.training
        self._class_weights = weights
        self._peak = peak
        self._slot_of: dict[int, int] = {}
        self._hyperparameters: dict[int, dict[str, Scalar]] = {}
        self._score = SCORES[program.split.info.task]
        self.epoch_metrics = epoch_metrics(program.signature)
        self.watched = ("loss", "val_loss")
        self.out_of_memory = False

    @property
    def program(self) -> Program:
        """What the members train in at present."""
        return self._slots.program

    @property
    def stacks(self) -> list[StackTrainee]:
        """This one."""
        return [self]

    @property
    def width(self) -> int:
        lanes = 1 if self._lanes is None else self._lanes._max_workers
        return min(self._most, max(BLOCKS, lanes) * self.program.members)

    @property
    def fault(self) -> str | None:
        return self._cache.faults.words

    @property
    def identity(self) -> str:
        signature = self.program.signature
        return dumps(
            [signature.family, signature.version, dict(signature.structure), signature.precision, signature.layers]
        )

    def start(self, member: Member) -> None:
        values = self._values_of(member)
        slot = self._take_slot(member, values)
        epochs, weights = self._training.epochs, self._class_weights
        self._slots.reset(slot, values, seed=member.seed, epochs=epochs, class_weights=weights)

    def resume(self, member: Member, arrays: Arrays, *, inherited: bool) -> None:
        values = self._values_of(member)
        length, weights = self._training.epochs, self._class_weights
        fresh = self.program.fresh(values, seed=member.seed, epochs=length, class_weights=weights)
        row, best = restored(arrays, fresh)
        slot = self._take_slot(member, values)
        epochs = int(arrays["epochs"])
        self._slots.restore(slot, row, seed=member.seed, epochs=epochs, best=None if inherited else best)

    def snapshot(self, members: Sequence[Member]) -> dict[int, Arrays]:
        taken = self._slots.rows([self._slot_of[m.member] for m in members])
        return {
            m.member: arrays_of(*taken[slot], self._slots.best_of(slot))
            for m in members
            for slot in [self._slot_of[m.member]]
        }

    def _values_of(self, member: Member) -> dict[str, Scalar]:
        """All hyperparameters of a member.

        Raises:
            Refused: it can't be trained in this stack.
        """
        signature = self.program.signature
        family = signature.declaration
        values = filled(family, member.hyperparameters)
        if values["warmup_epochs"] and float(values["warmup_epochs"]) >= self._training.epochs:
            raise Refused(
                f"Expected warmup_epochs below the {self._training.epochs} epochs of training. "
                f"Received: {values['warmup_epochs']}"
            )
        unknown = bool(signature.activations) and values["activation"] not in signature.activations
        if structure_of(family, values) != signature.structure or unknown:
            raise Refused(f"Expected a member of the stack's structure. Received: {values}")
        return values

    def _take_slot(self, member: Member, values: dict[str, Scalar]) -> int:
        slot = next(s for s in range(len(self._slot_of) + 1) if s not in self._slot_of.values())
        self._slot_of[member.member] = slot
        self._hyperparameters[member.member] = values
        return slot

    def train_epoch(self, members: Sequence[Member]) -> dict[int, dict[str, float] | Exception]:
        better = None if self._training.deterministic else self._cache.better(self.program, self._most)
        if better is not None:
            self._slots.move_to(better)
        slots = [self._slot_of[m.member] for m in members]
        metrics = self._slots.run_epoch(slots)
        errors = {slot: error for slot in slots if isinstance(error := metrics[slot], Exception)}
        if errors:
            retried = {} if self._training.deterministic else self._retried(errors)
            metrics |= {slot: self._blamed(slot, errors, retried.get(slot)) for slot in errors}
        return {m.member: self._told(self._slot_of[m.member], metrics) for m in members}

    def _retried(self, failed: Mapping[int, Exception]) -> dict[int, MemberMetrics | Exception]:
        """The failed members' epoch, each by itself in the plainest program: one's error is not its neighbours'."""
        if any(isinstance(error, tf.errors.ResourceExhaustedError | MemoryError) for error in failed.values()):
            self.out_of_memory = True
        try:
            self._slots.move_to(self._cache.single(self.program.signature))
        except Exception as error:  # noqa: BLE001 - not even that one can be built
            return dict.fromkeys(failed, error)
        retried: dict[int, MemberMetrics | Exception] = {}
        for slot in failed:
            retried |= self._slots.run_epoch([slot])
        return retried

    def _blamed(
        self, slot: int, errors: Mapping[int, Exception], retried: MemberMetrics | Exception | None
    ) -> MemberMetrics | Exception:
        """What a member whose call failed has in the end: the metrics of its second try, or what to tell of it.

        That is its first error where it was alone in the call, or fails by the same alone; else the second one.
        """
        if retried is not None and not isinstance(retried, Exception):
            return retried
        first = errors[slot]
        is_own = sum(error is first for error in errors.values()) == 1 or _say_the_same(first, retried)
        if not is_own and is_fault(first) and retried is None:
            return TryElsewhere("It was not alone in the call that failed.")
        return self._cache.faults.judged(first if is_own or retried is None else retried)

    def _told(self, slot: int, metrics: Mapping[int, MemberMetrics | Exception]) -> dict[str, float] | Exception:
        mine = metrics[slot]
        if isinstance(mine, Exception):
            return mine
        return {
            "loss": mine.loss,
            "val_loss": mine.val_loss,
            self._score: mine.score,
            f"val_{self._score}": mine.val_score,
            **self._slots.own[slot],
            "learning_rate": mine.learning_rate,
        }

    def select(self, member: Member) -> None:
        self._slots.mark_best(self._slot_of[member.member])

    def result_metrics(self, member: Member) -> dict[str, float]:  # noqa: ARG002 - the same for all of a stack
        return {
            "parameter_count": float(self.program.architecture.parameter_count),
            "peak_memory_mb": self._peak.mb(),
        }

    def keep(
        self, member: Member, model: KeepModel, selected_epoch: int, history: Sequence[Mapping[str, float]]
    ) -> Callable[[], KeptModel]:
        return self.keeping(member, self.best(member), model, selected_epoch, history, {})

    def best(self, member: Member) -> Weights:
        """The weights of a member's selected epoch so far."""
        return self._slots.best(self._slot_of[member.member])

    def keeping(
        self,
        member: Member,
        weights: Weights,
        model: KeepModel,
        selected_epoch: int,
        history: Sequence[Mapping[str, float]],
        more: Mapping[str, Any],
        first_epoch: int = 0,
    ) -> Callable[[], KeptModel]:
        """What writes the model of a member with these weights; `more` goes into its metadata.

        Of several instances `first_epoch` is the one of `history` that this one began with.
        """
        run = Run(self._request, member, self._values_of(member), selected_epoch, tuple(history), first_epoch)
        return partial(_write, self.program, run, weights, model, more)

    def end(self, member: Member) -> None:
        slot = self._slot_of.pop(member.member, None)
        if slot is not None:
            self._slots.free(slot)
            del self._hyperparameters[member.member]

    def prepare(self, wanted: Prepare) -> None:
        prepare(wanted, self._cache, self.program.signature.networks)

    def failure_reason(self, error: Exception) -> FailureReason:
        reason = _reason(error)
        self.out_of_memory |= reason is FailureReason.OUT_OF_MEMORY
        return reason


def _write(program: Program, run: Run, best: Weights, model: KeepModel, more: Mapping[str, Any]) -> KeptModel:
    """Write a member's model and what comes with it, where wanted; score it on the test part, if there is one."""
    with program.faults.noted():
        return _written(program, run, best, model, more)


def _written(program: Program, run: Run, best: Weights, model: KeepModel, more: Mapping[str, Any]) -> KeptModel:
    exported = exported_model(program, run.hyperparameters, *best)
    size = 0 if model.path is None else save_model(exported, model.path)
    metadata = {
        "family": program.signature.family,
        "task": program.split.info.task,
        "classes": list(program.split.info.classes),
        "input_shape": list(program.split.shape),
        "selected_epoch": run.selected_epoch,
        "hyperparameters": run.hyperparameters,
        "program": {"members": program.variant.members, "xla": program.variant.xla},
        **more,
    }
    if program.split.info.columns:
        metadata["inputs"] = inputs_of(program.split.info)
    files, notes = write_beside(program, run, exported, best, model, metadata) if model.path else ([], [])
    return KeptModel(
        member=model.member,
        path=model.path,
        size_bytes=size,
        metadata=metadata,
        test_metrics=test_metrics(program, run.hyperparameters, best),
        files=files,
        notes=[*(f"{warning.code}: {warning.message}" for warning in program.split.warnings), *notes],
    )


def class_weights(given: ClassWeights | None, split: Split) -> list[float]:
    """A weight for each class in the order of the model's outputs; none where the study gives none.

    Raises:
        Refused: the data have no classes.
    """
    if given is None:
        return []
    if split.info.task != "classification":
        raise Refused(f"Expected no class_weights for {split.info.name}, whose targets are no classes.")
    if isinstance(given, dict):
        return given_weights(given, split.info.classes)
    return balanced_weights(np.bincount(split.train.y, minlength=split.outputs).tolist())


def _say_the_same(first: Exception, second: object) -> bool:
    """Whether two errors of the framework say the same: what failed a member in company fails it alone."""
    if not isinstance(first, tf.errors.OpError) or not isinstance(second, tf.errors.OpError):
        return False
    return type(first) is type(second) and essence(first) == essence(second)


def _reason(error: Exception) -> FailureReason:
    cause = error.__cause__ if isinstance(error, Explained) else error
    exhausted = isinstance(cause, tf.errors.ResourceExhaustedError | MemoryError)
    return FailureReason.OUT_OF_MEMORY if exhausted else FailureReason.EXCEPTION
