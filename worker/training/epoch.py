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

from worker.training import optimizers, precision, regularizers
from worker.training.knobs import Knobs, class_weights_of, columns_of, knobs_of, schedule_of
from worker.training.losses import Losses
from worker.training.models.augmentation import Augmentation
from worker.training.models.stacked import Stacked
from worker.training.randomness import uniform
from worker.training.schedules import learning_rates

if TYPE_CHECKING:
    from worker.training.program import Program

EVALUATION_ROWS = 512
"""Most validation samples of a member that are evaluated at once."""


class State(NamedTuple):
    """What K members carry from epoch to epoch.

    `weights` is [K, P] float32, all variables of a member laid end to end, and so is each of the optimizer's `slots`;
    behind them come those of loss scaling, [K, 1] float32. `statistics` is [K, S] float32; `counts`, [K] int64, are the
    steps that each has behind it, skipped ones too.
    """

    weights: Any
    statistics: Any
    counts: Any
    slots: tuple[Any, ...]


class _Batch(NamedTuple):
    """What one step trains on: [K, B] samples, of which the first `size` count; the members' `counts` of steps."""

    order: Any
    size: Any
    counts: Any


class Epoch:
    """The traced function of a program."""

    def __init__(self, program: Program, rule: optimizers.Optimizer) -> None:
        self._program = program
        self._rule = rule
        split = program.split
        self._train = split.train.tensors
        self._validation = split.validation.tensors
        self._losses = Losses(split.info.task, split.targets.deviation)
        kernels = [np.full(v.size, v.kind == "kernel", np.float32) for v in program.architecture.weights]
        self._is_kernel = tf.constant(np.concatenate(kernels))
        self._function = tf.function(self._trace, jit_compile=program.variant.xla, autograph=False)

    def __call__(self, state: State, runtime: NDArray[np.float64], order: NDArray[np.int32]) -> tuple[State, Any]:
        """The state after the epoch; a [K, 5] float64: loss, score, val_loss, val_score, learning rate at its end.

        `runtime` is [K, columns]; `order`, [steps, K, B], are the training samples of each batch, padded after the last
        sample.
        """
        new, table = self._function(state, tf.constant(runtime), tf.constant(order))
        return State(*new), table

    def _trace(self, state: State, runtime: Any, order: Any) -> tuple[State, Any]:
        program = self._program
        column = columns_of(runtime)
        knobs = knobs_of(column)
        class_weights, momentum = class_weights_of(runtime), knobs.momentum[:, tf.newaxis]
        steps = tf.range(program.steps_per_epoch, dtype=tf.float64)[tf.newaxis]
        counts = tf.cast(state.counts, tf.float64)[:, tf.newaxis] + steps
        rates, scales = self._rates(column, counts)
        # [steps, K, 1]: a row a step.
        rates32, scales32 = (tf.transpose(tf.cast(r, tf.float32))[:, :, tf.newaxis] for r in (rates, scales))
        zeros = tf.zeros([program.members])

        def step(k: Any, losses: Any, scores: Any, weights: Any, statistics: Any, *slots: Any) -> tuple[Any, ...]:
            optimizer_slots, scaling = list(slots[: self._rule.slots]), list(slots[self._rule.slots :])
            if scaling:
                counts_now = tf.cast(state.counts, tf.float64)[:, tf.newaxis] + tf.cast(k, tf.float64)
                rate, scale = self._rates(column, counts_now - tf.cast(scaling[2], tf.float64))
                tuning = optimizers.Step(tf.cast(rate, tf.float32), tf.cast(scale, tf.float32), momentum)
            else:
                tuning = optimizers.Step(rates32[k], scales32[k], momentum)
            size = tf.minimum(program.batch_size, len(program.split.train) - k * program.batch_size)
            batch = _Batch(order[k], size, state.counts + tf.cast(k, tf.int64))
            loss_scale = scaling[0] if scaling else None
            sums, right, gradients, new_statistics = self._gradients(
                batch, weights, statistics, knobs, class_weights, loss_scale
            )
            good = precision.finite(gradients) if scaling else None
            penalty, gradients = self._penalised(weights, gradients, knobs)
            gradients = tf.cond(knobs.clips, lambda: optimizers.clipped(gradients, knobs.clip), lambda: gradients)
            decayed = optimizers.decayed(weights, knobs.weight_decay[:, tf.newaxis], tuning.learning_rate)
            new_weights, new_slots = self._rule.rule(decayed, gradients, optimizer_slots, tuning)
            if good is not None:
                new_weights = tf.where(good, new_weights, weights)
                new_slots = [tf.where(good, new, old) for new, old in zip(new_slots, optimizer_slots, strict=True)]
                new_slots += precision.rescaled(scaling, good)
            losses += sums + penalty * tf.cast(size, tf.float32)
            return k + 1, losses, scores + right, new_weights, new_statistics, *new_slots

        _, losses, scores, weights, statistics, *slots = tf.while_loop(
            lambda k, *_: k < program.steps_per_epoch,
            step,
            (tf.constant(0), zeros, zeros, state.weights, state.statistics, *state.slots),
            maximum_iterations=program.steps_per_epoch,
        )
        val_loss, val_score = self._evaluate(weights, statistics, knobs)
        samples = float(len(program.split.train))
        table = [losses / samples, scores / samples, val_loss, val_score]
        last = rates[:, -1]
        if len(slots) > self._rule.slots:
            done = counts[:, -1:] - tf.cast(slots[-1], tf.float64)
            last = self._rates(column, tf.maximum(done, 0.0))[0][:, 0]
        metrics = tf.stack([*(tf.cast(column, tf.float64) for column in table), last], axis=1)
        return State(weights, statistics, state.counts + program.steps_per_epoch, tuple(slots)), metrics

    def _rates(self, column: Any, counts: Any) -> tuple[Any, Any]:
        """Learning rates and `optimizers.step_scales` after `counts` steps, all [K, S] float64."""
        rates = learning_rates(schedule_of(column), counts, self._program.steps_per_epoch)
        return rates, optimizers.step_scales(rates, counts + 1.0)

    def _gradients(
        self, batch: _Batch, weights: Any, statistics: Any, knobs: Knobs, class_weights: Any, loss_scale: Any
    ) -> tuple[Any, Any, Any, Any]:
        """A step's sums of loss and score, [K] each, the gradients of its mean loss, [K, P], and the new statistics.

        `loss_scale`, [K, 1] or None, is what the loss is multiplied by before its gradients are taken.
        """
        program = self._program
        whole = tf.cast(batch.size, tf.float32)
        if loss_scale is not None:
            whole /= loss_scale[:, 0]

        def part(j: Any, statistics: Any) -> tuple[Any, ...]:
            at_once = program.samples_at_once
            valid = tf.sequence_mask(tf.minimum(at_once, batch.size - j * at_once), at_once, tf.float32)
            now = batch.counts * program.parts + tf.cast(j, tf.int64)
            masks = self.masks(knobs, now)
            augment = Augmentation(knobs.augments, knobs.places, knobs.noises, knobs.seed, now)
            rows = tf.slice(batch.order, [0, j * at_once], [program.members, at_once])
            x, y = (tf.gather(values, rows) for values in self._train)
            with tf.GradientTape() as tape:
                tape.watch(weights)
                outputs, statistics = self._forward(weights, statistics, x, knobs, masks, valid, augment)
                sums, right = self._losses(outputs, y, valid, knobs.label_smoothing, class_weights)
                loss = sums / whole
            return sums, right, tape.gradient(loss, weights), statistics

        def added(j: Any, *so_far: Any) -> tuple[Any, ...]:
            *totals, statistics = so_far
            *mine, statistics = part(j, statistics)
            return j + 1, *(total + one for total, one in zip(totals, mine, strict=True)), statistics

        if program.parts == 1:
            sums, right, gradients, statistics = part(0, statistics)
        else:
            zeros = tf.zeros([program.members])
            # An empty part would have no batch to normalise by.
            parts = -(-batch.size // program.samples_at_once)
            _, sums, right, gradients, statistics = tf.while_loop(
                lambda j, *_: j < parts,
                added,
                (tf.constant(0), zeros, zeros, tf.zeros_like(weights), statistics),
                maximum_iterations=program.parts,
            )
        if loss_scale is not None:
            gradients /= loss_scale
        return sums, right, gradients, statistics

    def _evaluate(self, weights: Any, statistics: Any, knobs: Knobs) -> tuple[Any, Any]:
        """Validation loss with the penalties, and score, each [K]: the mean over all samples."""
        program = self._program
        samples = len(program.split.validation)
        passes = -(-samples // EVALUATION_ROWS)
        rows = -(-samples // passes)

        def part(k: Any, losses: Any, scores: Any) -> tuple[Any, Any, Any]:
            numbers = k * rows + tf.range(rows)
            valid = tf.cast(numbers < samples, tf.float32)
            numbers = tf.minimum(numbers, samples - 1)
            x, y = (tf.gather(values, numbers) for values in self._validation)
            x = tf.broadcast_to(x[tf.newaxis], [program.members, *x.shape])
            y = tf.broadcast_to(y[tf.newaxis], [program.members, *y.shape])
            outputs, _ = self._forward(weights, statistics, x, knobs, None, valid)
            sums, right = self._losses(outputs, y, valid, knobs.label_smoothing)
            return k + 1, losses + sums, scores + right

        zeros = tf.zeros([program.members])
        if passes == 1:
            _, losses, scores = part(tf.constant(0), zeros, zeros)
        else:
            _, losses, scores = tf.while_loop(lambda k, *_: k < passes, part, (tf.constant(0), zeros, zeros))
        penalty = regularizers.penalties(weights, self._is_kernel, knobs.l1, knobs.l2)
        return losses / samples + penalty, scores / samples

    def _forward(
        self,
        weights: Any,
        statistics: Any,
        x: Any,
        knobs: Knobs,
        masks: Any,
        valid: Any,
        augment: Augmentation | None = None,
    ) -> tuple[Any, Any]:
        program = self._program
        parts = program.architecture
        pieces = _pieces(weights, parts.weights)
        blocks = Stacked(
            members=program.members,
            xla=program.variant.xla,
            weights=iter(precision.cast_weights(pieces, parts.weights, program.signature.precision)),
            statistics=iter(_pieces(statistics, parts.statistics)),
            activations=program.signature.activations,
            activation_index=knobs.activation,
            masks=None if masks is None else iter(masks),
            sample_weight=valid,
            augment=augment,
        )
        outputs = program.builder(blocks, x, program.signature.hyperparameters, program.split.outputs)
        if not blocks.new_statistics:
            return outputs, statistics
        return outputs, tf.concat(blocks.new_statistics, 1)

    def _penalised(self, weights: Any, gradients: Any, knobs: Knobs) -> tuple[Any, Any]:
        """The penalty of each member, [K], and the gradients with the penalty's added."""

        def with_penalty() -> tuple[Any, Any]:
            added = regularizers.penalty_gradients(weights, self._is_kernel, knobs.l1, knobs.l2)
            return regularizers.penalties(weights, self._is_kernel, knobs.l1, knobs.l2), gradients + added

        result: tuple[Any, Any] = tf.cond(knobs.penalises, with_penalty, lambda: (tf.zeros_like(knobs.l1), gradients))
        return result

    def masks(self, knobs: Knobs, counts: Any) -> list[Any]:
        """A mask for each dropout, [K, B, …] float32: 0 with the member's rate, 1/(1 - rate) otherwise.

        A member's numbers depend on its seed and on `counts`, [K] int64, the steps that it has behind it: not on its
        slot, the width, its neighbours or the compiler.
        """
        program = self._program
        shapes = [(program.samples_at_once, *shape) for shape in program.architecture.masks]
        sizes = [int(np.prod(shape)) for shape in shapes]
        if not sizes:
            return []

        def drawn() -> Any:
            rate = knobs.dropout[:, tf.newaxis]
            return tf.where(uniform(knobs.seed, counts, sum(sizes)) >= rate, 1.0 / (1.0 - rate), 0.0)

        masks = tf.cond(knobs.drops, drawn, lambda: tf.ones([program.members, sum(sizes)]))
        pieces = tf.split(masks, sizes, axis=1)
        return [tf.reshape(m, [program.members, *shape]) for m, shape in zip(pieces, shapes, strict=True)]


def _pieces(flat: Any, variables: Any) -> list[Any]:
    """Variables [K, …] of a [K, P] tensor."""
    if not variables:
        return []
    pieces = tf.split(flat, [v.size for v in variables], axis=1)
    return [tf.reshape(piece, [flat.shape[0], *v.shape]) for piece, v in zip(pieces, variables, strict=True)]
