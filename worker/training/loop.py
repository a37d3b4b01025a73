"""Training a stack: the conversation's trainee over compiled programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import tensorflow as tf

from app.domain.families import FAMILIES, Scalar
from app.domain.trial import FailureReason
from worker.conversation import Channel, Refused, check_metrics, converse, fail_all, refuse_all
from worker.progress import RESULT_METRICS
from worker.protocol import KeepModel, KeptModel, Member, Prepare, TrainStack
from worker.training.beside import Run, write_beside
from worker.training.cache import ProgramCache
from worker.training.export import exported_model, save_model, test_metrics
from worker.training.program import Program
from worker.training.signature import Signature, filled, structural_signature, structure_of
from worker.training.slots import MemberMetrics, Slots, Weights

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
    return ("loss", "val_loss", score, f"val_{score}", "learning_rate", "seconds")


def train_stack(
    request: TrainStack, channel: Channel, cache: ProgramCache, lanes: ThreadPoolExecutor | None = None
) -> None:
    """Train a stack: all of its conversation after `TrainStack`. `lanes` train blocks of members side by side.

    What goes wrong fails members, in words, and never the trainer; only a broken pipe raises.

    Raises:
        ChannelBroken: the supervisor is gone.
        TypeError: the supervisor sent a message out of turn.
    """
    started = time.perf_counter()
    try:
        signature = structural_signature(request)
        check_metrics(request, epoch_metrics(signature), RESULT_METRICS)
        program = cache.program(signature, request.slots, request.expected)
        try:
            program.compile()
        except Exception:  # noqa: BLE001 - not every graph compiles, and memory may be short: the plain form says more
            program = cache.single(signature)
            program.compile()
    except Refused as error:
        refuse_all(request, channel, str(error))
        return
    except Exception as error:  # noqa: BLE001 - building a program may exhaust the device or meet a bug of ours
        fail_all(request, channel, _reason(error), error)
        return
    trainee = StackTrainee(request, program, cache, lanes)
    last = request.training.select_epoch == "last"
    converse(request, channel, trainee, select_last=last, preparing_s=time.perf_counter() - started)
    cache.note(trainee.program)
    if trainee.out_of_memory:
        cache.clear()


def prepare(wanted: Prepare, cache: ProgramCache) -> None:
    """Compile ahead what a stack to come will need; what can't be trained is told when it comes."""
    if wanted.family != "function":
        try:
            cache.prepare(structural_signature(wanted), wanted.slots, wanted.expected)
        except Exception:  # noqa: BLE001 - told to the trial, in words, once it is there
            return


class StackTrainee:
    """The members of a stack in the slots of a program: each takes the lowest free one, so that blocks stay full."""

    def __init__(
        self, request: TrainStack, program: Program, cache: ProgramCache, lanes: ThreadPoolExecutor | None
    ) -> None:
        self._request = request
        self._cache = cache
        self._lanes = lanes
        self._slots = Slots(program, lanes)
        self._most = request.slots
        self._epochs = request.training.epochs
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
    def width(self) -> int:
        lanes = 1 if self._lanes is None else self._lanes._max_workers
        return min(self._most, max(BLOCKS, lanes) * self.program.members)

    def start(self, member: Member) -> None:
        signature = self.program.signature
        family = FAMILIES[signature.family]
        values = filled(family, member.hyperparameters)
        if values["warmup_epochs"] and float(values["warmup_epochs"]) >= self._epochs:
            raise Refused(
                f"Expected warmup_epochs below the {self._epochs} epochs of training. "
                f"Received: {values['warmup_epochs']}"
            )
        if structure_of(family, values) != signature.structure or values["activation"] not in signature.activations:
            raise Refused(f"Expected a member of the stack's structure. Received: {values}")
        slot = next(s for s in range(len(self._slot_of) + 1) if s not in self._slot_of.values())
        self._slot_of[member.member] = slot
        self._hyperparameters[member.member] = values
        self._slots.reset(slot, values, seed=member.seed, epochs=self._epochs)

    def train_epoch(self, members: Sequence[Member]) -> dict[int, dict[str, float] | Exception]:
        better = self._cache.better(self.program, self._most)
        if better is not None:
            self._slots.move_to(better)
        slots = [self._slot_of[m.member] for m in members]
        metrics = self._slots.run_epoch(slots)
        failed = [slot for slot in slots if isinstance(metrics[slot], Exception)]
        if failed:
            metrics = metrics | self._retried(failed, metrics)
        return {m.member: self._told(metrics[self._slot_of[m.member]]) for m in members}

    def _retried(
        self, failed: Sequence[int], errors: Mapping[int, MemberMetrics | Exception]
    ) -> dict[int, MemberMetrics | Exception]:
        """The failed members' epoch, each by itself in the plainest program: one's error is not its neighbours'."""
        if any(isinstance(error, tf.errors.ResourceExhaustedError | MemoryError) for error in errors.values()):
            self.out_of_memory = True
        try:
            self._slots.move_to(self._cache.single(self.program.signature))
        except Exception as error:  # noqa: BLE001 - not even that one can be built
            return dict.fromkeys(failed, error)
        retried: dict[int, MemberMetrics | Exception] = {}
        for slot in failed:
            retried |= self._slots.run_epoch([slot])
        return retried

    def _told(self, mine: MemberMetrics | Exception) -> dict[str, float] | Exception:
        if isinstance(mine, Exception):
            return mine
        return {
            "loss": mine.loss,
            "val_loss": mine.val_loss,
            self._score: mine.score,
            f"val_{self._score}": mine.val_score,
            "learning_rate": mine.learning_rate,
        }

    def select(self, member: Member) -> None:
        self._slots.mark_best(self._slot_of[member.member])

    def result_metrics(self, member: Member) -> dict[str, float]:  # noqa: ARG002 - the same for all of a stack
        return {"parameter_count": float(self.program.architecture.parameter_count)}

    def keep(
        self, member: Member, model: KeepModel, selected_epoch: int, history: Sequence[Mapping[str, float]]
    ) -> Callable[[], KeptModel]:
        values, best = self._hyperparameters[member.member], self._slots.best(self._slot_of[member.member])
        run = Run(self._request, member, values, selected_epoch, tuple(history))
        return partial(_write, self.program, run, best, model)

    def end(self, member: Member) -> None:
        slot = self._slot_of.pop(member.member, None)
        if slot is not None:
            self._slots.free(slot)
            del self._hyperparameters[member.member]

    def prepare(self, wanted: Prepare) -> None:
        prepare(wanted, self._cache)

    def failure_reason(self, error: Exception) -> FailureReason:
        reason = _reason(error)
        self.out_of_memory |= reason is FailureReason.OUT_OF_MEMORY
        return reason


def _write(program: Program, run: Run, best: Weights, model: KeepModel) -> KeptModel:
    """Write a member's model and what comes with it, and score it on the test part where there is one."""
    exported = exported_model(program, run.hyperparameters, *best)
    size = save_model(exported, model.path)
    metadata = {
        "family": program.signature.family,
        "task": program.split.info.task,
        "classes": list(program.split.info.classes),
        "input_shape": list(program.split.shape),
        "selected_epoch": run.selected_epoch,
        "hyperparameters": run.hyperparameters,
        "program": {"members": program.variant.members, "xla": program.variant.xla},
    }
    tested = test_metrics(exported, program.split)
    if tested:
        metadata["test_metrics"] = tested
    files, notes = write_beside(program, run, exported, best, model, metadata)
    return KeptModel(member=model.member, path=model.path, size_bytes=size, metadata=metadata, files=files, notes=notes)


def _reason(error: Exception) -> FailureReason:
    exhausted = isinstance(error, tf.errors.ResourceExhaustedError | MemoryError)
    return FailureReason.OUT_OF_MEMORY if exhausted else FailureReason.EXCEPTION
