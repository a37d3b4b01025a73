"""A compiled program: it trains K members of one structural signature together, an epoch a call.

`Program` owns the members' weights, statistics and optimizer slots, each one variable with a leading axis of K members.
Weights are one [K, P] tensor: all variables of a member laid end to end. So a slot is redrawn by writing one row, an
optimizer is a handful of operations whatever the number of layers, and the program is traced once in its life.

`epoch.Epoch` (a traced function) owns what happens within an epoch: it gathers shuffled batches by index from the data
set on the device, trains, then evaluates the validation part. All hyperparameters that are not structural are read from
one [K, …] variable at run time. `cache.ProgramCache` keeps programs for the stacks to come.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from app.domain.families import SCHEDULES, Scalar
from worker.training import initializers
from worker.training.data import Split, load_split
from worker.training.epoch import COLUMNS, Epoch, EpochInputs
from worker.training.models import BUILDERS, architecture
from worker.training.optimizers import optimizer
from worker.training.signature import Signature

RECENT_EPOCHS = 8
"""Epochs of which the quickest is what an epoch of a program takes."""


@dataclass(frozen=True, slots=True)
class MemberMetrics:
    """What one epoch gave a member. `score` is the accuracy, or the mean absolute error in the target's unit."""

    loss: float
    score: float
    val_loss: float
    val_score: float
    learning_rate: float


class Program:
    """K slots in which members of one structural signature train.

    Not thread-safe. A slot trains only while it is active: its variables are left alone otherwise, so that members may
    end, and others start, at different times. Weights of the best epoch are kept on the device, see `run_epoch`.
    """

    def __init__(self, signature: Signature, width: int, *, jit_compile: bool = False) -> None:
        """Declare the variables and load the data set; the tracing comes with the first epoch.

        Raises:
            Refused: the data set or the network is impossible.
        """
        self.signature = signature
        self.width = width
        self.split: Split = load_split(signature.dataset, signature.input_kind)
        structure = signature.hyperparameters
        self.builder = BUILDERS[signature.family]
        self.architecture = architecture(self.builder, self.split.shape, structure, self.split.outputs)
        self.batch_size = min(int(structure["batch_size"]), len(self.split.train))
        self.steps_per_epoch = -(-len(self.split.train) // self.batch_size)
        rule = optimizer(str(structure["optimizer"]), nesterov=bool(structure["nesterov"]))

        def zeros(size: int, dtype: Any = tf.float32) -> Any:
            return tf.Variable(tf.zeros([width, size], dtype), trainable=False)

        weights, statistics = self.architecture.weight_count, self.architecture.statistic_count
        self.weights, self.statistics = zeros(weights), zeros(statistics)
        self.best_weights, self.best_statistics = zeros(weights), zeros(statistics)
        self.slots = [zeros(weights) for _ in range(rule.slots)]
        self.counts = tf.Variable(tf.zeros([width], tf.int64), trainable=False)
        self.runtime = zeros(len(COLUMNS), tf.float64)
        self._seeds = [0] * width
        self._epochs = [0] * width
        self._improved = np.zeros(width, bool)
        self.trained_s = 0.0
        self._recent_s: deque[float] = deque(maxlen=RECENT_EPOCHS)
        self._is_traced = False
        self._order = np.zeros((self.steps_per_epoch, width, self.batch_size), np.int32)
        self.epoch = Epoch(self, rule, jit_compile=jit_compile)

    def reset(self, slot: int, hyperparameters: Mapping[str, Scalar], *, seed: int, epochs: int) -> None:
        """Start a member in `slot`: fresh weights by `seed`, empty optimizer slots, step 0; other slots are untouched.

        `hyperparameters` are all of the family's; `epochs` is the length of its schedule.
        """
        self._seeds[slot], self._epochs[slot], self._improved[slot] = seed, 0, False
        self._write(self.weights, slot, initializers.fresh_weights(self.architecture, seed))
        self._write(self.statistics, slot, initializers.fresh_statistics(self.architecture))
        for variable in self.slots:
            self._write(variable, slot, np.zeros(self.architecture.weight_count, np.float32))
        self._write(self.counts, slot, np.int64(0))
        values = {**hyperparameters, "epochs": epochs, "seed": seed}
        values["schedule"] = SCHEDULES.index(str(values["lr_schedule"]))
        values["activation"] = self.signature.activations.index(str(values["activation"]))
        self._write(self.runtime, slot, np.array([float(values[name]) for name in COLUMNS]))

    def run_epoch(self, active: Sequence[int]) -> dict[int, MemberMetrics]:
        """Train the members in the slots `active` for one epoch and evaluate them; the metrics by slot.

        Raises:
            tf.errors.ResourceExhaustedError: the device's memory is too small.
        """
        is_active = np.zeros(self.width, bool)
        samples = len(self.split.train)
        for slot in active:
            is_active[slot] = True
            order = np.zeros(self.steps_per_epoch * self.batch_size, np.int32)
            order[:samples] = initializers.shuffled(self._seeds[slot], self._epochs[slot], samples)
            self._order[:, slot] = order.reshape(self.steps_per_epoch, self.batch_size)
            self._epochs[slot] += 1
        started = time.perf_counter()
        table = self.epoch(EpochInputs(self._order, is_active, self._improved)).numpy()
        self._note(time.perf_counter() - started)
        self._improved = np.zeros(self.width, bool)
        return {slot: MemberMetrics(*map(float, table[slot])) for slot in active}

    def mark_best(self, slot: int) -> None:
        """Keep the present weights of `slot` as its best; they are copied, on the device, before they next change."""
        self._improved[slot] = True

    def best(self, slot: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weights [P] and moving statistics [S] of `slot` when it was last marked best."""
        weights, statistics = self.best_weights, self.best_statistics
        if self._improved[slot]:
            weights, statistics = self.weights, self.statistics
        return weights[slot].numpy(), statistics[slot].numpy()

    @property
    def epoch_s(self) -> float:
        """Seconds of the quickest of the last epochs; infinite before the second."""
        return min(self._recent_s, default=float("inf"))

    def _note(self, seconds: float) -> None:
        """Count an epoch, but not the first: it was traced."""
        if self._is_traced:
            self.trained_s += seconds
            self._recent_s.append(seconds)
        self._is_traced = True

    @staticmethod
    def _write(variable: Any, slot: int, row: Any) -> None:
        if np.size(row):
            variable.scatter_nd_update([[slot]], [row])
