"""How members do on a part of the data: the one way in which losses and scores are told, of whatever part.

Within an epoch it is traced for the validation part; a single member's test part goes through it once its model is
taken. So `val_loss` and `test_loss` are the same quantity: of logits, with smoothed labels and penalties.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from app.domain.families import Scalar
from worker.training import regularizers
from worker.training.data import Part
from worker.training.losses import Losses
from worker.training.runtime_parameters import Knobs, columns_of, knobs_of, own_columns_of, row_of

if TYPE_CHECKING:
    from worker.training.program import Program
    from worker.training.rows import Weights

EVALUATION_ROWS = 512
"""Most samples of a member that are evaluated at once."""


class Evaluated(NamedTuple):
    """How K members do on a part: the mean loss, the penalties that come to it, the mean score, each [K] float32; and
    the sums of the family's own metrics, [K, M].
    """

    loss: Any
    penalty: Any
    score: Any
    sums: Any


class Evaluation:
    """What evaluates the members of a program. `is_kernel`, [P] of 0 and 1, says which weights are penalised."""

    def __init__(self, program: Program) -> None:
        split = program.split
        self._network, self._metrics = program.network, program.metrics
        self._output_count = split.outputs
        self.losses = Losses(split.info.task, split.targets.deviation)
        kernels = [np.full(v.size, v.kind == "kernel", np.float32) for v in program.architecture.weights]
        self.is_kernel = tf.constant(np.concatenate(kernels))

    def __call__(self, part: tuple[Any, Any], weights: Any, statistics: Any, knobs: Knobs) -> Evaluated:
        """How K members with these weights, [K, P], do on a part: prepared samples, [n, …], and targets, [n]."""
        members, samples = weights.shape[0], len(part[0])
        passes = -(-samples // EVALUATION_ROWS)
        rows = -(-samples // passes)

        def add(k: Any, losses: Any, scores: Any, sums: Any, _: Any) -> tuple[Any, ...]:
            numbers = k * rows + tf.range(rows)
            valid = tf.cast(numbers < samples, tf.float32)
            numbers = tf.minimum(numbers, samples - 1)
            x, y = (tf.gather(values, numbers) for values in part)
            x = tf.broadcast_to(x[tf.newaxis], [members, *x.shape])
            y = tf.broadcast_to(y[tf.newaxis], [members, *y.shape])
            outputs, penalty = self.outputs(weights, statistics, x, knobs, valid)
            found, right = self.losses(outputs, y, valid, knobs.label_smoothing)
            return k + 1, losses + found, scores + right, sums + self._metrics.sum(outputs, y, valid), penalty

        zeros = tf.zeros([members])
        start = (tf.constant(0), zeros, zeros, tf.zeros([members, self._metrics.sums(self._output_count)]), zeros)
        _, losses, scores, sums, own = (
            add(*start) if passes == 1 else tf.while_loop(lambda k, *_: k < passes, add, start)
        )
        penalty = regularizers.penalties(weights, self.is_kernel, knobs.l1, knobs.l2) + own
        return Evaluated(losses / samples, penalty, scores / samples, sums)

    def outputs(self, weights: Any, statistics: Any, x: Any, knobs: Knobs, valid: Any) -> tuple[Any, Any]:
        """What the members give for `x`, [K, B, …], not in training: [K, B, outputs]; and their own penalties, [K]."""
        network = self._network

        def of(weights: Any, statistics: Any, x: Any, knobs: Knobs) -> tuple[Any, Any]:
            outputs, _, penalty = network.forward(weights, statistics, x, knobs, None, valid, None)
            return outputs, tf.zeros(outputs.shape[:1]) if penalty is None else penalty

        if not network.member_by_member or weights.shape[0] == 1:
            return of(weights, statistics, x, knobs)

        def of_one(mine: Any) -> tuple[Any, ...]:
            weights, statistics, x, values = tf.nest.map_structure(alone, mine)
            return tuple(part[0] for part in of(weights, statistics, x, knobs.with_members(values)))

        mapped: tuple[Any, Any] = tf.vectorized_map(of_one, (weights, statistics, x, knobs.of_members()))
        return mapped


def alone(value: Any) -> Any:
    """One member's tensor with an axis of members of its own."""
    return value[tf.newaxis]


class Scores(NamedTuple):
    """How a member does on a part. `loss` has the `penalty` in it; `score` is as in its epochs."""

    loss: float
    penalty: float
    score: float


def scores_of(program: Program, hyperparameters: Mapping[str, Scalar], weights: Weights, part: Part) -> Scores:
    """How the member with these weights and hyperparameters, all of its family's, does on a prepared part."""
    found = program.epoch.evaluation(part.tensors, *_tensors(weights), _knobs(program, hyperparameters))
    loss, penalty, score = (float(value[0]) for value in (found.loss, found.penalty, found.score))
    return Scores(loss + penalty, penalty, score)


def outputs_of(
    program: Program, hyperparameters: Mapping[str, Scalar], weights: Weights, part: Part
) -> NDArray[np.float64]:
    """What that member gives for a prepared part, [n, outputs]: logits, or standardised values."""
    evaluation, knobs, tensors = program.epoch.evaluation, _knobs(program, hyperparameters), _tensors(weights)
    pieces = []
    for start in range(0, len(part), EVALUATION_ROWS):
        x = tf.constant(part.x[start : start + EVALUATION_ROWS])
        outputs, _ = evaluation.outputs(*tensors, alone(x), knobs, tf.ones([len(x)]))
        pieces.append(outputs[0].numpy().astype(np.float64))
    return np.concatenate(pieces)


def _tensors(weights: Weights) -> tuple[Any, Any]:
    trained, statistics = (alone(tf.constant(values)) for values in weights)
    return trained, statistics


def _knobs(program: Program, hyperparameters: Mapping[str, Scalar]) -> Knobs:
    """The knobs of one member; neither seed nor length of a schedule shows where nothing is trained."""
    own = program.network.columns
    row = tf.constant(row_of(hyperparameters, program.signature.activations, seed=0, epochs=1, own=own)[np.newaxis])
    return knobs_of(columns_of(row), own_columns_of(row, own))
