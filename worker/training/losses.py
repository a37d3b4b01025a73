"""Losses and scores of K members, summed over the samples of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from app.domain.families import Task


@dataclass(frozen=True, slots=True)
class Losses:
    """The loss of a task and the score that people read.

    Classification: cross-entropy of the smoothed labels, `(1-s)·onehot + s/C` (Szegedy et al. 2016), as Keras'
    CategoricalCrossentropy, in validation too; the score is the accuracy. Regression: the squared error of the
    *standardised* target, so that learning rates and penalties mean the same whatever its unit; the score is the
    absolute error in the target's own unit (`target_deviation` is what it was divided by).
    """

    task: Task
    target_deviation: float

    def __call__(
        self, outputs: Any, targets: Any, sample_weight: Any, label_smoothing: Any, class_weights: Any = None
    ) -> tuple[Any, Any]:
        """Sums over the batch of loss and score, each [K] float32.

        `outputs` is [K, B, C] float32, `targets` [K, B] (int32 classes, or float32), `sample_weight` [B] of 0 and 1,
        `label_smoothing` [K]. `class_weights`, [K, C], multiply the losses of their classes' samples alone: the sum is
        still divided by the number of samples, as in Keras' `fit`.
        """
        if self.task == "regression":
            error = outputs[:, :, 0] - targets
            loss, score = tf.square(error), tf.abs(error) * self.target_deviation
        else:
            log_probabilities = tf.nn.log_softmax(outputs)
            label = tf.one_hot(targets, outputs.shape[-1])
            smoothing = label_smoothing[:, tf.newaxis]
            of_label = tf.reduce_sum(log_probabilities * label, 2)
            loss = -(1.0 - smoothing) * of_label - smoothing * tf.reduce_mean(log_probabilities, 2)
            if class_weights is not None:
                loss *= tf.reduce_sum(label * class_weights[:, tf.newaxis], 2)
            score = tf.cast(tf.equal(tf.argmax(outputs, 2, tf.int32), targets), tf.float32)
        return tf.reduce_sum(loss * sample_weight, 1), tf.reduce_sum(score * sample_weight, 1)
