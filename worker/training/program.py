"""A compiled program: an epoch of K members of one structural signature in one call.

A program holds no members. Their state goes in and comes out (`epoch.State`), so that one compiled function serves any
number of blocks of K members (`slots.Slots`) and it is traced once in its life. `epoch.Epoch` owns what happens within
an epoch; `cache.ProgramCache` keeps programs, and decides which variant of one to use.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from app.domain.families import Scalar
from worker.training.data import Split
from worker.training.epoch import Epoch, State
from worker.training.faults import Faults
from worker.training.optimizers import optimizer
from worker.training.precision import SCALING_SLOTS, scales_loss
from worker.training.runtime_parameters import COLUMNS, row_of
from worker.training.signature import Signature

RECENT_EPOCHS = 8
"""Epochs of which the quickest is what an epoch of a program takes."""


@dataclass(frozen=True, slots=True)
class Variant:
    """How the arithmetic of a signature is compiled: how many members a call trains, and whether XLA compiles it."""

    members: int
    xla: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A member's own part of a block's state, without the axis of members, in host memory."""

    weights: NDArray[np.float32]
    statistics: NDArray[np.float32]
    count: int
    slots: tuple[NDArray[np.float32], ...]
    runtime: NDArray[np.float64]


class Program:
    """One variant of one structural signature. Calls may run side by side.

    A step updates the weights by `batch_size` samples. With gradient accumulation these go through the network in
    `parts` of `samples_at_once`, whose gradients are added up: the update is that of the whole, the memory that of one.
    """

    def __init__(self, signature: Signature, variant: Variant, faults: Faults | None = None) -> None:
        """Load the data set and lay out the network; the tracing comes with `compile`.

        `faults` notes what the framework fails by.

        Raises:
            Refused: the data set or the network is impossible.
        """
        self.signature = signature
        self.variant = variant
        self.faults = Faults() if faults is None else faults
        self.members = variant.members
        self.split: Split = signature.split()
        structure = signature.hyperparameters
        self.network = signature.network(xla=variant.xla)
        self.architecture = self.network.architecture
        self.metrics = signature.metrics
        samples = len(self.split.train)
        self.samples_at_once = min(int(structure["batch_size"]), samples)
        self.parts = min(int(structure.get("gradient_accumulation_steps", 1)), -(-samples // self.samples_at_once))
        self.batch_size = self.samples_at_once * self.parts
        self.steps_per_epoch = -(-samples // self.batch_size)
        classes = self.split.outputs if signature.weighs_classes else 0
        self.columns = len(COLUMNS) + classes + len(self.network.columns)
        rule = optimizer(str(structure["optimizer"]), nesterov=bool(structure["nesterov"]))
        scaling = SCALING_SLOTS if scales_loss(signature.precision) else ()
        self._slot_starts = [(self.architecture.weight_count, 0.0)] * rule.slots + [(1, start) for start in scaling]
        self.compile_s: float | None = None
        self.trained_s = 0.0
        self._recent_s: deque[float] = deque(maxlen=RECENT_EPOCHS)
        self._compiling = threading.Lock()
        self.epoch = Epoch(self, rule)

    def fresh(
        self,
        hyperparameters: Mapping[str, Scalar],
        *,
        seed: int,
        epochs: int,
        class_weights: Sequence[float] = (),
    ) -> Row:
        """A new member: weights by `seed`, empty optimizer slots, step 0.

        `hyperparameters` are all of the family's; `epochs` is the length of its schedule; `class_weights` are in the
        order of the data set's classes where the signature weighs them.
        """
        signature = self.signature
        weights, statistics = self.network.fresh(seed)
        return Row(
            weights=weights,
            statistics=statistics,
            count=0,
            slots=tuple(np.full(size, start, np.float32) for size, start in self._slot_starts),
            runtime=row_of(
                hyperparameters,
                signature.activations,
                seed=seed,
                epochs=epochs,
                class_weights=class_weights,
                own=self.network.columns,
            ),
        )

    def blank(self) -> State:
        """The state of a block without members, in host memory."""
        weights = np.zeros((self.members, self.architecture.weight_count), np.float32)
        return State(
            weights=weights,
            statistics=np.zeros((self.members, self.architecture.statistic_count), np.float32),
            counts=np.zeros(self.members, np.int64),
            slots=tuple(np.full((self.members, size), start, np.float32) for size, start in self._slot_starts),
        )

    def compile(self) -> None:
        """Trace and compile, where that has not been done yet, by an epoch in which nobody trains. Thread-safe.

        Raises:
            tf.errors.OpError: the compiler can't, or the device's memory is too small.
        """
        with self._compiling:
            if self.compile_s is not None:
                return
            started = time.perf_counter()
            if self.variant.xla:
                self._run_blank()  # what XLA can't compile has not run: nothing to note, its plain form is next
            else:
                with self.faults.noted():
                    self._run_blank()
            self.compile_s = time.perf_counter() - started

    def time_epoch(self) -> float:
        """Seconds of an epoch in which nobody trains: the arithmetic is the same."""
        self.compile()
        started = time.perf_counter()
        with self.faults.noted():
            self._run_blank()
        return time.perf_counter() - started

    def run(
        self, state: State, runtime: NDArray[np.float64], order: NDArray[np.int32]
    ) -> tuple[State, NDArray[np.float64]]:
        """The state after an epoch of a block, and its metrics as `Epoch` gives them.

        Raises:
            tf.errors.ResourceExhaustedError: the device's memory is too small; the block is as it was.
        """
        self.compile()
        started = time.perf_counter()
        with self.faults.noted():
            new, table = self.epoch(state, runtime, order)
            metrics: NDArray[np.float64] = table.numpy()
        seconds = time.perf_counter() - started
        self.trained_s += seconds
        self._recent_s.append(seconds)
        return new, metrics

    @property
    def epoch_s(self) -> float:
        """Seconds of the quickest of the last epochs of a block; infinite before the first."""
        return min(self._recent_s, default=float("inf"))

    def _run_blank(self) -> None:
        order = np.zeros((self.steps_per_epoch, self.members, self.batch_size), np.int32)
        runtime = np.ones((self.members, self.columns))
        runtime[:, len(COLUMNS) :] = 0.5  # a rate that a layer may have
        state = State(*tf.nest.map_structure(tf.constant, self.blank()))
        self.epoch(state, runtime, order)[1].numpy()
