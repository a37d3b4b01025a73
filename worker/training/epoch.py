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
from worker.training.evaluation import Evaluation, alone
from worker.training.runtime_parameters import (
    Knobs,
    class_weights_of,
    columns_of,
    knobs_of,
    own_columns_of,
    schedule_of,
)
from worker.training.schedules import learning_rates

if TYPE_CHECKING:
    from worker.training.program import Program


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


class _Part(NamedTuple):
    """What goes through the network at once, each [K, …]: state, samples, what is drawn, weights of classes, scale."""

    weights: Any
    statistics: Any
    x: Any
    y: Any
    masks: Any
    now: Any
    class_weights: Any
    scale: Any


class Descent(NamedTuple):
    """What a batch, or a part of one, gives K members.

    Sums of loss and score, [K], and of own metrics, [K, M]; penalties of the network's own, [K]; gradients, [K, P].
    """

    losses: Any
    scores: Any
    sums: Any
    penalty: Any
    gradients: Any


class Epoch:
    """The traced function of a program."""

    def __init__(self, program: Program, rule: optimizers.Optimizer) -> None:
        self._program = program
        self._rule = rule
        split = program.split
        self._train = split.train.tensors
        self._validation = split.validation.tensors
        self.evaluation = Evaluation(program)
        self._losses, self._is_kernel = self.evaluation.losses, self.evaluation.is_kernel
        self._metrics = program.metrics
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
        own = program.network.columns
        knobs = knobs_of(column, own_columns_of(runtime, own))
        class_weights, momentum = class_weights_of(runtime, own), knobs.momentum[:, tf.newaxis]
        steps = tf.range(program.steps_per_epoch, dtype=tf.float64)[tf.newaxis]
        counts = tf.cast(state.counts, tf.float64)[:, tf.newaxis] + steps
        rates, scales = self._rates(column, counts)
        # [steps, K, 1]: a row a step.
        rates32, scales32 = (tf.transpose(tf.cast(r, tf.float32))[:, :, tf.newaxis] for r in (rates, scales))
        zeros = tf.zeros([program.members])

        def step(
            k: Any, losses: Any, scores: Any, sums: Any, weights: Any, statistics: Any, *slots: Any, rest: int = 0
        ) -> tuple[Any, ...]:
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
            descent, new_statistics = self._descent(batch, weights, statistics, knobs, class_weights, loss_scale, rest)
            gradients = descent.gradients
            good = precision.finite(gradients) if scaling else None
            penalty, gradients = self._penalised(weights, gradients, knobs)
            gradients = tf.cond(knobs.clips, lambda: optimizers.clipped(gradients, knobs.clip), lambda: gradients)
            decayed = optimizers.decayed(weights, knobs.weight_decay[:, tf.newaxis], tuning.learning_rate)
            new_weights, new_slots = self._rule.rule(decayed, gradients, optimizer_slots, tuning)
            if good is not None:
                new_weights = tf.where(good, new_weights, weights)
                new_slots = [tf.where(good, new, old) for new, old in zip(new_slots, optimizer_slots, strict=True)]
                new_slots += precision.rescaled(scaling, good)
            losses += descent.losses + (penalty + descent.penalty) * tf.cast(size, tf.float32)
            scores, sums = scores + descent.scores, sums + descent.sums
            return k + 1, losses, scores, sums, new_weights, new_statistics, *new_slots

        # Where padding would take part in what others give, the last batch is a step of its own, as long as it is.
        rest = len(program.split.train) % program.batch_size if program.network.exact_batches else 0
        full = program.steps_per_epoch - bool(rest)
        carried = tf.while_loop(
            lambda k, *_: k < full,
            step,
            (tf.constant(0), zeros, zeros, self._no_sums(), state.weights, state.statistics, *state.slots),
            maximum_iterations=full,
        )
        if rest:
            carried = step(*carried, rest=rest)
        _, losses, scores, sums, weights, statistics, *slots = carried
        held_out = self.evaluation(self._validation, weights, statistics, knobs)
        samples = float(len(program.split.train))
        table = [losses / samples, scores / samples, held_out.loss + held_out.penalty, held_out.score]
        last = rates[:, -1]
        if len(slots) > self._rule.slots:
            done = counts[:, -1:] - tf.cast(slots[-1], tf.float64)
            last = self._rates(column, tf.maximum(done, 0.0))[0][:, 0]
        own_metrics = self._metrics.values(sums, len(program.split.train), program.split.outputs)
        own_metrics += self._metrics.values(held_out.sums, len(program.split.validation), program.split.outputs)
        metrics = tf.stack([tf.cast(column, tf.float64) for column in (*table, last, *own_metrics)], axis=1)
        return State(weights, statistics, state.counts + program.steps_per_epoch, tuple(slots)), metrics

    def _rates(self, column: Any, counts: Any) -> tuple[Any, Any]:
        """Learning rates and `optimizers.step_scales` after `counts` steps, all [K, S] float64."""
        rates = learning_rates(schedule_of(column), counts, self._program.steps_per_epoch)
        return rates, optimizers.step_scales(rates, counts + 1.0)

    def _no_sums(self) -> Any:
        return tf.zeros([self._program.members, self._metrics.sums(self._program.split.outputs)])

    def _descent(
        self,
        batch: _Batch,
        weights: Any,
        statistics: Any,
        knobs: Knobs,
        class_weights: Any,
        loss_scale: Any,
        rest: int,
    ) -> tuple[Descent, Any]:
        """What a step's batch gives, the gradients those of its mean loss; and the new statistics.

        `loss_scale`, [K, 1] or None, is what the loss is multiplied by before its gradients are taken. `rest` is how
        many samples the batch has where it comes unpadded, and is not a whole one.
        """
        program = self._program
        size = tf.cast(batch.size, tf.float32)
        scale = tf.ones([program.members]) if loss_scale is None else loss_scale[:, 0]

        def part(j: Any, statistics: Any, exactly: int = 0) -> tuple[Any, ...]:
            at_once = exactly or program.samples_at_once
            start = j * program.samples_at_once
            valid = tf.sequence_mask(tf.minimum(at_once, batch.size - start), at_once, tf.float32)
            now = batch.counts * program.parts + tf.cast(j, tf.int64)
            masks = self.masks(knobs, now, at_once)
            rows = tf.slice(batch.order, [0, start], [program.members, at_once])
            x, y = (tf.gather(values, rows) for values in self._train)
            share = tf.reduce_sum(valid) / size
            found, statistics = self._mapped(
                _Part(weights, statistics, x, y, masks, now, class_weights, scale), knobs, valid, size, share
            )
            return *found, statistics

        def added(j: Any, *so_far: Any) -> tuple[Any, ...]:
            *totals, statistics = so_far
            *mine, statistics = part(j, statistics)
            return j + 1, *(total + one for total, one in zip(totals, mine, strict=True)), statistics

        # An empty part would have no batch to normalise by.
        full, partial = divmod(rest, program.samples_at_once) if rest else (None, 0)
        if program.parts == 1:
            *totals, statistics = part(0, statistics, partial)
        else:
            zeros = tf.zeros([program.members])
            nothing = (zeros, zeros, self._no_sums(), zeros, tf.zeros_like(weights))
            parts = -(-batch.size // program.samples_at_once) if full is None else full
            _, *totals, statistics = tf.while_loop(
                lambda j, *_: j < parts,
                added,
                (tf.constant(0), *nothing, statistics),
                maximum_iterations=program.parts,
            )
            if partial:
                *mine, statistics = part(full, statistics, partial)
                totals = [total + one for total, one in zip(totals, mine, strict=True)]
        descent = Descent(*totals)
        if loss_scale is not None:
            descent = descent._replace(gradients=descent.gradients / loss_scale)
        return descent, statistics

    def _mapped(self, part: _Part, knobs: Knobs, valid: Any, size: Any, share: Any) -> tuple[Descent, Any]:
        """What a part of a batch gives all members together, or each by itself, which is mapped over them."""
        if not self._program.network.member_by_member or self._program.members == 1:
            return self._gradients(part, knobs, valid, size, share)
        weighs = part.class_weights is not None

        def of_one(given: Any) -> tuple[Any, ...]:
            mine, values = tf.nest.map_structure(alone, given)
            member = mine if weighs else mine._replace(class_weights=None)
            found, statistics = self._gradients(member, knobs.with_members(values), valid, size, share)
            return tuple(value[0] for value in (*found, statistics))

        # The gradient lies inside the map: XLA can't compile the gradient of a map inside a loop.
        whole = part._replace(class_weights=part.class_weights if weighs else ())
        *found, statistics = tf.vectorized_map(of_one, (whole, knobs.of_members()))
        return Descent(*found), statistics

    def _gradients(self, part: _Part, knobs: Knobs, valid: Any, size: Any, share: Any) -> tuple[Descent, Any]:
        with tf.GradientTape() as tape:
            tape.watch(part.weights)
            outputs, statistics, penalty = self._program.network.forward(
                part.weights, part.statistics, part.x, knobs, part.masks, valid, part.now
            )
            losses, scores = self._losses(outputs, part.y, valid, knobs.label_smoothing, part.class_weights)
            loss = losses / (size / part.scale)
            if penalty is not None:
                loss += penalty * share * part.scale
        gradients = tape.gradient(loss, part.weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        sums = self._metrics.sum(outputs, part.y, valid)
        penalty = tf.zeros_like(losses) if penalty is None else penalty * share
        return Descent(losses, scores, sums, penalty, gradients), statistics

    def _penalised(self, weights: Any, gradients: Any, knobs: Knobs) -> tuple[Any, Any]:
        """The penalty of each member, [K], and the gradients with the penalty's added."""

        def with_penalty() -> tuple[Any, Any]:
            added = regularizers.penalty_gradients(weights, self._is_kernel, knobs.l1, knobs.l2)
            return regularizers.penalties(weights, self._is_kernel, knobs.l1, knobs.l2), gradients + added

        result: tuple[Any, Any] = tf.cond(knobs.penalises, with_penalty, lambda: (tf.zeros_like(knobs.l1), gradients))
        return result

    def masks(self, knobs: Knobs, counts: Any, rows: int | None = None) -> list[Any]:
        """What a training pass over `rows` samples draws, as many as go through at once where not given."""
        return self._program.network.masks(knobs, counts, self._program.samples_at_once if rows is None else rows)
