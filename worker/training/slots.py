"""The slots in which members train: blocks of as many members as one call of the program takes.

A slot is a row of a block. Members start and end at different times; a slot that a member left trains on unseen until
another one takes it, and a block in which nobody trains costs nothing. Each member counts its own steps and shuffles by
its own seed, so where and beside whom it trains changes nothing about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from app.domain.families import Scalar
from worker.training import initializers
from worker.training.epoch import State
from worker.training.program import Program, Row
from worker.training.rows import Weights

SHARED_METRICS = 5
"""Metrics of `MemberMetrics`, which every family has."""


@dataclass(frozen=True, slots=True)
class MemberMetrics:
    """What one epoch gave a member. `score` is the accuracy, or the mean absolute error in the target's unit."""

    loss: float
    score: float
    val_loss: float
    val_score: float
    learning_rate: float


@dataclass(slots=True)
class _Block:
    """K rows of a program. `arriving` are the rows of members that start with the next epoch."""

    state: State
    runtime: NDArray[np.float64]
    order: NDArray[np.int32]
    arriving: dict[int, Row] = field(default_factory=dict)

    def settle(self) -> None:
        """Write the rows of members that start."""
        if not self.arriving:
            return
        state = State(*tf.nest.map_structure(np.array, self.state))
        for index, row in self.arriving.items():
            state.weights[index], state.statistics[index], state.counts[index] = row.weights, row.statistics, row.count
            for mine, slot in zip(state.slots, row.slots, strict=True):
                mine[index] = slot
            self.runtime[index] = row.runtime
        self.state = State(*tf.nest.map_structure(tf.constant, state))
        self.arriving = {}

    def on_host(self) -> State:
        """The state of all rows in host memory: on a CPU the tensors' own."""
        self.settle()
        return State(*tf.nest.map_structure(np.asarray, self.state))


class Slots:
    """Members in training, by slot: 0, 1, 2, … as many as are asked for. Not thread-safe.

    `executor` runs blocks side by side; without one they run one after another.
    """

    def __init__(self, program: Program, executor: ThreadPoolExecutor | None = None) -> None:
        self.program = program
        self._executor = executor
        self._blocks: list[_Block] = []
        self._seeds: dict[int, int] = {}
        self._epochs: dict[int, int] = {}
        self._best: dict[int, Weights] = {}
        self.own: dict[int, dict[str, float]] = {}
        """By slot the metrics of the family's own that the last epoch gave."""

    def reset(
        self,
        slot: int,
        hyperparameters: Mapping[str, Scalar],
        *,
        seed: int,
        epochs: int,
        class_weights: Sequence[float] = (),
    ) -> None:
        """Start a member in `slot`: weights by `seed`, empty optimizer slots, step 0; other slots are untouched."""
        self._place(slot, self.program.fresh(hyperparameters, seed=seed, epochs=epochs, class_weights=class_weights))
        self._seeds[slot], self._epochs[slot] = seed, 0
        self._best.pop(slot, None)

    def restore(self, slot: int, row: Row, *, seed: int, epochs: int, best: Weights | None) -> None:
        """Let a member go on in `slot` as `row` says, with `epochs` epochs behind it."""
        self._place(slot, row)
        self._seeds[slot], self._epochs[slot] = seed, epochs
        self._best.pop(slot, None)
        if best is not None:
            self._best[slot] = best

    def run_epoch(self, active: Sequence[int]) -> dict[int, MemberMetrics | Exception]:
        """Train the members in the slots `active` for one epoch and evaluate them; the metrics by slot.

        Members of a block whose call fails have the error instead, and are as they were before.
        """
        by_block: dict[int, list[int]] = {}
        for slot in sorted(active):
            by_block.setdefault(slot // self.program.members, []).append(slot)
        blocks = list(by_block.items())
        if self._executor is None or len(blocks) < 2:
            results = [self._run_block(number, slots) for number, slots in blocks]
        else:
            results = list(self._executor.map(lambda pair: self._run_block(*pair), blocks))
        return {slot: metrics for result in results for slot, metrics in result.items()}

    def mark_best(self, slot: int) -> None:
        """Keep the present weights of `slot` as its best."""
        block, index = self._where(slot)
        block.settle()
        # On a CPU the arrays are the tensors' own memory: one row each is copied.
        weights, statistics = np.asarray(block.state.weights), np.asarray(block.state.statistics)
        self._best[slot] = weights[index].copy(), statistics[index].copy()

    def best(self, slot: int) -> Weights:
        """Weights [P] and moving statistics [S] of `slot` when it was last marked best."""
        return self._best[slot]

    def best_of(self, slot: int) -> Weights | None:
        """As `best`; None where `slot` was never marked."""
        return self._best.get(slot)

    def rows(self, slots: Sequence[int]) -> dict[int, tuple[Row, int]]:
        """Copies of members' rows in host memory, and how many epochs each has behind it, by slot."""
        taken: dict[int, tuple[Row, int]] = {}
        for number in {slot // self.program.members for slot in slots}:
            state = self._blocks[number].on_host()
            mine = [slot for slot in slots if slot // self.program.members == number]
            taken |= {slot: (self._row_in(state, slot), self._epochs[slot]) for slot in mine}
        return taken

    def free(self, slot: int) -> None:
        """Forget what is kept of a member that ended."""
        for kept in (self._best, self._seeds, self._epochs, self.own):
            kept.pop(slot, None)

    def move_to(self, program: Program) -> None:
        """Let the members go on in another variant of the program, exactly where they are."""
        rows = self.rows(list(self._seeds))
        self.program, self._blocks = program, []
        for slot, (row, _) in rows.items():
            self._place(slot, row)

    def _where(self, slot: int) -> tuple[_Block, int]:
        number, index = divmod(slot, self.program.members)
        return self._blocks[number], index

    def _place(self, slot: int, row: Row) -> None:
        program = self.program
        while slot >= len(self._blocks) * program.members:
            order = np.zeros((program.steps_per_epoch, program.members, program.batch_size), np.int32)
            self._blocks.append(_Block(program.blank(), np.zeros((program.members, program.columns)), order))
        block, index = self._where(slot)
        block.arriving[index] = row

    def _row_in(self, state: State, slot: int) -> Row:
        """A copy of a member's row of its block's `state` in host memory."""
        block, index = self._where(slot)

        def mine(values: Any) -> Any:
            return values[index].copy()

        return Row(
            mine(state.weights),
            mine(state.statistics),
            int(state.counts[index]),
            tuple(mine(values) for values in state.slots),
            mine(block.runtime),
        )

    def _run_block(self, number: int, slots: Sequence[int]) -> dict[int, MemberMetrics | Exception]:
        block, program = self._blocks[number], self.program
        try:
            block.settle()
            samples = len(program.split.train)
            for slot in slots:
                order = np.zeros(program.steps_per_epoch * program.batch_size, np.int32)
                order[:samples] = initializers.shuffled(self._seeds[slot], self._epochs[slot], samples)
                block.order[:, slot % program.members] = order.reshape(program.steps_per_epoch, program.batch_size)
            block.state, table = program.run(block.state, block.runtime, block.order)
        except Exception as error:  # noqa: BLE001 - whatever a model does is its members' affair, never the trainer's
            return dict.fromkeys(slots, error)
        for slot in slots:
            self._epochs[slot] += 1
        names = program.metrics.names
        told = (*names, *(f"val_{name}" for name in names))
        found: dict[int, MemberMetrics | Exception] = {}
        for slot in slots:
            row = [float(number) for number in table[slot % program.members]]
            found[slot] = MemberMetrics(*row[:SHARED_METRICS])
            self.own[slot] = dict(zip(told, row[SHARED_METRICS:], strict=True))
        return found
