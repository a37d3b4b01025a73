"""Training a stack: the conversation's trainee over a compiled program."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import tensorflow as tf

from app.domain.families import FAMILIES, Scalar
from app.domain.trial import FailureReason
from worker.conversation import (
    RESULT_METRICS,
    Channel,
    Refused,
    check_metrics,
    converse,
    fail_all,
    refuse_all,
)
from worker.protocol import KeepModel, KeptModel, Member, TrainStack
from worker.training.cache import ProgramCache
from worker.training.data import load_split
from worker.training.export import exported_model, save_model, test_metrics
from worker.training.program import Program
from worker.training.signature import Signature, filled, structural_signature

SCORES = {"classification": "accuracy", "regression": "mae"}
"""The metric that people read, by task."""


def limit_threads(intra_op: int | None = None) -> None:
    """Let TensorFlow use `intra_op` threads: half of the cores where not given, four at most; one between operations.

    Small models gain nothing from more: their threads would mostly wait for one another (measured on 2 cores, an epoch
    of 64-64-10 on digits: 15 ms with one thread, 26 ms with two, on a busy machine). The supervisor needs some of a
    core as well. Call it before TensorFlow does anything.

    Raises:
        RuntimeError: TensorFlow has already started its threads.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    tf.config.threading.set_intra_op_parallelism_threads(intra_op or max(1, min(4, cores // 2)))
    tf.config.threading.set_inter_op_parallelism_threads(1)


def require_device(label: str) -> None:
    """Return where TensorFlow sees the device that the trainer was given.

    Raises:
        RuntimeError: it was given a GPU and sees none, or several.
    """
    seen = tf.config.list_physical_devices("GPU")
    if label.startswith("gpu") and len(seen) != 1:
        raise RuntimeError(
            f"Expected TensorFlow to see one GPU for device {label!r}. Received: {len(seen)}. Install "
            "tensorflow[and-cuda] with a driver that fits it, or start the worker with --device cpu."
        )


def epoch_metrics(signature: Signature) -> tuple[str, ...]:
    """The metrics that each epoch of a stack reports.

    Raises:
        Refused: an unknown data set, or one that the family can't take.
    """
    score = SCORES[load_split(signature.dataset, signature.input_kind).info.task]
    return ("loss", "val_loss", score, f"val_{score}", "learning_rate", "seconds")


def train_stack(request: TrainStack, channel: Channel, cache: ProgramCache) -> None:
    """Train a stack: all of its conversation after `TrainStack`.

    What goes wrong fails members, in words, and never the trainer; only a broken pipe raises.

    Raises:
        EOFError, OSError: the supervisor is gone.
        TypeError: the supervisor sent a message out of turn.
    """
    started = time.perf_counter()
    try:
        signature = structural_signature(request)
        check_metrics(request, epoch_metrics(signature), RESULT_METRICS)
        program = cache.program(signature, len(request.members))
    except Refused as error:
        refuse_all(request, channel, str(error))
        return
    except Exception as error:  # noqa: BLE001 - building a program may exhaust the device or meet a bug of ours
        fail_all(request, channel, _reason(error), error)
        return
    trainee = StackTrainee(request, program)
    last = request.training.select_epoch == "last"
    converse(request, channel, trainee, select_last=last, preparing_s=time.perf_counter() - started)
    if trainee.out_of_memory:
        cache.clear()


class StackTrainee:
    """The members of a stack in the slots of a program, in their order."""

    def __init__(self, request: TrainStack, program: Program) -> None:
        self._program = program
        self._epochs = request.training.epochs
        self._slots = {member.member: slot for slot, member in enumerate(request.members)}
        self._hyperparameters: dict[int, dict[str, Scalar]] = {}
        self._score = SCORES[program.split.info.task]
        self.epoch_metrics = epoch_metrics(program.signature)
        self.watched = ("loss", "val_loss")
        self.out_of_memory = False

    def start(self, member: Member) -> None:
        values = filled(FAMILIES[self._program.signature.family], member.hyperparameters)
        if values["warmup_epochs"] and float(values["warmup_epochs"]) >= self._epochs:
            raise Refused(
                f"Expected warmup_epochs below the {self._epochs} epochs of training. "
                f"Received: {values['warmup_epochs']}"
            )
        self._hyperparameters[member.member] = values
        self._program.reset(self._slots[member.member], values, seed=member.seed, epochs=self._epochs)

    def train_epoch(self, members: Sequence[Member]) -> dict[int, dict[str, float]]:
        metrics = self._program.run_epoch([self._slots[m.member] for m in members])
        reports = {}
        for m in members:
            mine = metrics[self._slots[m.member]]
            reports[m.member] = {
                "loss": mine.loss,
                "val_loss": mine.val_loss,
                self._score: mine.score,
                f"val_{self._score}": mine.val_score,
                "learning_rate": mine.learning_rate,
            }
        return reports

    def select(self, member: Member) -> None:
        self._program.mark_best(self._slots[member.member])

    def result_metrics(self, member: Member) -> dict[str, float]:  # noqa: ARG002 - the same for all of a stack
        return {"parameter_count": float(self._program.architecture.parameter_count)}

    def keep(self, member: Member, model: KeepModel, selected_epoch: int) -> KeptModel:
        program, values = self._program, self._hyperparameters[member.member]
        exported = exported_model(program, values, *program.best(self._slots[member.member]))
        size = save_model(exported, model.path)
        metadata = {
            "family": program.signature.family,
            "task": program.split.info.task,
            "classes": list(program.split.info.classes),
            "input_shape": list(program.split.shape),
            "selected_epoch": selected_epoch,
            "hyperparameters": values,
        }
        tested = test_metrics(exported, program.split)
        if tested:
            metadata["test_metrics"] = tested
        return KeptModel(member=member.member, path=model.path, size_bytes=size, metadata=metadata)

    def failure_reason(self, error: Exception) -> FailureReason:
        reason = _reason(error)
        self.out_of_memory = reason is FailureReason.OUT_OF_MEMORY
        return reason


def _reason(error: Exception) -> FailureReason:
    exhausted = isinstance(error, tf.errors.ResourceExhaustedError | MemoryError)
    return FailureReason.OUT_OF_MEMORY if exhausted else FailureReason.EXCEPTION
