"""One epoch of K members as one traced function: gather, train, evaluate.

The function is pure: it takes the members' state and gives the state after the epoch, so that any number of blocks of
members can go through one compiled program, one after another or side by side, and a call that failed has changed
nothing. Within the epoch weights, statistics and optimizer slots are loop variables. What depends on the step alone,
such as learning rates, is computed for all steps before the loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from worker.training import optimizers, regularizers
from worker.training.knobs import Knobs, columns_of, knobs_of, own_columns_of, schedule_of
from worker.training.losses import Losses
from worker.training.schedules import learning_rates

if TYPE_CHECKING:
    from worker.training.program import Program

EVALUATION_ROWS = 512
"""Most validation samples of a member that are evaluated at once."""


class State(NamedTuple):
    """What K members carry from epoch to epoch.

    `weights` is [K, P] float32, all variables of a member laid end to end, and so is each of the optimizer's `slots`;
    `statistics` is [K, S] float32; `counts`, [K] int64, are the steps that each has behind it.
    """

    weights: Any
    statistics: Any
    counts: Any
    slots: tuple[Any, ...]


class Descent(NamedTuple):
    """What a batch gives K members: sums of loss and score, [K], and of own metrics; penalties; gradients, [K, P]."""

    losses: Any
    scores: Any
    sums: Any
    penalty: Any
    gradients: Any
    statistics: Any


class Epoch:
    """The traced function of a program."""

    def __init__(self, program: Program, rule: optimizers.Optimizer) -> None:
        self._program = program
        self._rule = rule
        split = program.split
        self._train = _on_device(split.train.x, split.train.y)
        self._validation = _on_device(split.validation.x, split.validation.y)
        self._losses = Losses(split.info.task, split.targets.deviation)
        self._metrics = program.metrics
        kernels = [np.full(v.size, v.kind == "kernel", np.float32) for v in program.architecture.weights]
        self._is_kernel = tf.constant(np.concatenate(kernels))
        self._function = tf.function(self._trace, jit_compile=program.variant.xla, autograph=False)

    def __call__(self, state: State, runtime: NDArray[np.float64], order: NDArray[np.int32]) -> tuple[State, Any]:
        """The state after the epoch; a [K, 5 + 2M] float64: loss, score, val_loss, val_score, learning rate at its
        end, then the M metrics of the family's own on training and on validation data.

        `runtime` is [K, columns]; `order`, [steps, K, B], are the training samples of each batch, padded after the last
        sample.
        """
        new, table = self._function(state, tf.constant(runtime), tf.constant(order))
        return State(*new), table

    def _trace(self, state: State, runtime: Any, order: Any) -> tuple[State, Any]:
        program = self._program
        column = columns_of(runtime)
        knobs = knobs_of(column, own_columns_of(runtime, program.network.columns))
        steps = tf.range(program.steps_per_epoch, dtype=tf.float64)[tf.newaxis]
        counts = tf.cast(state.counts, tf.float64)[:, tf.newaxis] + steps
        rates = learning_rates(schedule_of(column), counts, program.steps_per_epoch)
        scales = optimizers.step_scales(rates, counts + 1.0)
        # [steps, K, 1]: a row a step.
        rates32, scales32 = (tf.transpose(tf.cast(r, tf.float32))[:, :, tf.newaxis] for r in (rates, scales))
        zeros = tf.zeros([program.members])

        def step(
            k: Any,
            losses: Any,
            scores: Any,
            sums: Any,
            weights: Any,
            statistics: Any,
            *slots: Any,
            rows: int | None = None,
        ) -> tuple[Any, ...]:
            tuning = optimizers.Step(rates32[k], scales32[k], knobs.momentum[:, tf.newaxis])
            batch = order[k]
            size = tf.minimum(program.batch_size, len(program.split.train) - k * program.batch_size)
            valid = tf.sequence_mask(size, program.batch_size, tf.float32)
            if rows is not None:
                batch, size, valid = batch[:, :rows], tf.constant(rows), tf.ones([rows])
            now = state.counts + tf.cast(k, tf.int64)
            masks = self.masks(knobs, now, rows)
            x, y = (tf.gather(values, batch) for values in self._train)
            descent = self._descent(weights, statistics, x, y, knobs, masks, valid, size, now)
            new_statistics, gradients = descent.statistics, descent.gradients
            penalty, gradients = self._penalised(weights, gradients, knobs)
            gradients = tf.cond(knobs.clips, lambda: optimizers.clipped(gradients, knobs.clip), lambda: gradients)
            decayed = optimizers.decayed(weights, knobs.weight_decay[:, tf.newaxis], tuning.learning_rate)
            weights, new_slots = self._rule.rule(decayed, gradients, list(slots), tuning)
            losses += descent.losses + (penalty + descent.penalty) * tf.cast(size, tf.float32)
            return k + 1, losses, scores + descent.scores, sums + descent.sums, weights, new_statistics, *new_slots

        # Where padding would take part in what others give, the last batch is a step of its own, as long as it is.
        rest = len(program.split.train) % program.batch_size if program.network.exact_batches else 0
        full = program.steps_per_epoch - bool(rest)
        sums = tf.zeros([program.members, self._metrics.sums(program.split.outputs)])
        carried = tf.while_loop(
            lambda k, *_: k < full,
            step,
            (tf.constant(0), zeros, zeros, sums, state.weights, state.statistics, *state.slots),
            maximum_iterations=full,
        )
        if rest:
            carried = step(*carried, rows=rest)
        _, losses, scores, sums, weights, statistics, *slots = carried
        val_loss, val_score, val_sums = self._evaluate(weights, statistics, knobs)
        samples = float(len(program.split.train))
        table = [losses / samples, scores / samples, val_loss, val_score, rates[:, -1]]
        table += self._metrics.values(sums, len(program.split.train), program.split.outputs)
        table += self._metrics.values(val_sums, len(program.split.validation), program.split.outputs)
        metrics = tf.stack([tf.cast(column, tf.float64) for column in table], axis=1)
        return State(weights, statistics, state.counts + program.steps_per_epoch, tuple(slots)), metrics

    def _descent(
        self, weights: Any, statistics: Any, x: Any, y: Any, knobs: Knobs, masks: Any, valid: Any, size: Any, now: Any
    ) -> Descent:
        """The gradients of a batch: of all members together, or of each by itself, which is mapped over them."""
        if not self._program.network.member_by_member or self._program.members == 1:
            return self._gradients(weights, statistics, x, y, knobs, masks, valid, size, now)

        def of_one(mine: Any) -> tuple[Any, ...]:
            weights, statistics, x, y, values, masks, now = tf.nest.map_structure(_alone, mine)
            found = self._gradients(weights, statistics, x, y, knobs.with_members(values), masks, valid, size, now)
            return tuple(part[0] for part in found)

        # The gradient lies inside the map: XLA can't compile the gradient of a map inside a loop.
        return Descent(*tf.vectorized_map(of_one, (weights, statistics, x, y, knobs.of_members(), masks, now)))

    def _gradients(
        self, weights: Any, statistics: Any, x: Any, y: Any, knobs: Knobs, masks: Any, valid: Any, size: Any, now: Any
    ) -> Descent:
        with tf.GradientTape() as tape:
            tape.watch(weights)
            outputs, new_statistics, penalty = self._program.network.forward(
                weights, statistics, x, knobs, masks, valid, now
            )
            losses, scores = self._losses(outputs, y, valid, knobs.label_smoothing)
            loss = losses / tf.cast(size, tf.float32)
            if penalty is not None:
                loss += penalty
        gradients = tape.gradient(loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        sums = self._metrics.sum(outputs, y, valid)
        penalty = tf.zeros_like(losses) if penalty is None else penalty
        return Descent(losses, scores, sums, penalty, gradients, new_statistics)

    def _outputs(self, weights: Any, statistics: Any, x: Any, knobs: Knobs, valid: Any) -> tuple[Any, Any]:
        """What the members give in validation, [K, B, outputs], and the penalties of their networks' own, [K]."""
        network = self._program.network

        def of(weights: Any, statistics: Any, x: Any, knobs: Knobs) -> tuple[Any, Any]:
            outputs, _, penalty = network.forward(weights, statistics, x, knobs, None, valid, None)
            return outputs, tf.zeros(outputs.shape[:1]) if penalty is None else penalty

        if not network.member_by_member or self._program.members == 1:
            return of(weights, statistics, x, knobs)

        def of_one(mine: Any) -> tuple[Any, ...]:
            weights, statistics, x, values = tf.nest.map_structure(_alone, mine)
            return tuple(part[0] for part in of(weights, statistics, x, knobs.with_members(values)))

        mapped: tuple[Any, Any] = tf.vectorized_map(of_one, (weights, statistics, x, knobs.of_members()))
        return mapped

    def _evaluate(self, weights: Any, statistics: Any, knobs: Knobs) -> tuple[Any, Any, Any]:
        """Validation loss with the penalties, and score, each [K]: the mean over all samples; sums of own metrics."""
        program = self._program
        samples = len(program.split.validation)
        passes = -(-samples // EVALUATION_ROWS)
        rows = -(-samples // passes)

        def part(k: Any, losses: Any, scores: Any, sums: Any, _: Any) -> tuple[Any, ...]:
            numbers = k * rows + tf.range(rows)
            valid = tf.cast(numbers < samples, tf.float32)
            numbers = tf.minimum(numbers, samples - 1)
            x, y = (tf.gather(values, numbers) for values in self._validation)
            x = tf.broadcast_to(x[tf.newaxis], [program.members, *x.shape])
            y = tf.broadcast_to(y[tf.newaxis], [program.members, *y.shape])
            outputs, penalty = self._outputs(weights, statistics, x, knobs, valid)
            found, right = self._losses(outputs, y, valid, knobs.label_smoothing)
            return k + 1, losses + found, scores + right, sums + self._metrics.sum(outputs, y, valid), penalty

        zeros = tf.zeros([program.members])
        start = (
            tf.constant(0),
            zeros,
            zeros,
            tf.zeros([program.members, self._metrics.sums(program.split.outputs)]),
            zeros,
        )
        _, losses, scores, sums, own = (
            part(*start) if passes == 1 else tf.while_loop(lambda k, *_: k < passes, part, start)
        )
        penalty = regularizers.penalties(weights, self._is_kernel, knobs.l1, knobs.l2) + own
        return losses / samples + penalty, scores / samples, sums

    def _penalised(self, weights: Any, gradients: Any, knobs: Knobs) -> tuple[Any, Any]:
        """The penalty of each member, [K], and the gradients with the penalty's added."""

        def with_penalty() -> tuple[Any, Any]:
            added = regularizers.penalty_gradients(weights, self._is_kernel, knobs.l1, knobs.l2)
            return regularizers.penalties(weights, self._is_kernel, knobs.l1, knobs.l2), gradients + added

        result: tuple[Any, Any] = tf.cond(knobs.penalises, with_penalty, lambda: (tf.zeros_like(knobs.l1), gradients))
        return result

    def masks(self, knobs: Knobs, counts: Any, rows: int | None = None) -> list[Any]:
        """What a training pass over `rows` samples, a whole batch where not given, draws: see `Network.masks`."""
        return self._program.network.masks(knobs, counts, self._program.batch_size if rows is None else rows)


def _on_device(x: Any, y: Any) -> tuple[Any, Any]:
    return tf.constant(x), tf.constant(y)


def _alone(value: Any) -> Any:
    """One member's tensor with an axis of members of its own."""
    return value[tf.newaxis]
