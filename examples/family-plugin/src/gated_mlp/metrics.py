"""Metrics in TensorFlow: what each sample adds, and what is made of the means."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def among_best_three(outputs: Any, targets: Any) -> Any:
    """[n, classes] logits and [n] classes → [n]: 1 where the class is among the three largest."""
    of_target = tf.gather(outputs, targets, axis=1, batch_dims=1)[:, tf.newaxis]
    larger = tf.reduce_sum(tf.cast(outputs > of_target, tf.float32), 1)
    return tf.cast(larger < 3, tf.float32)


def f1_counts(outputs: Any, targets: Any) -> Any:
    """[n, 3 · classes]: of each class whether it is rightly named, named, and wanted."""
    classes = outputs.shape[-1]
    named, wanted = tf.one_hot(tf.argmax(outputs, 1), classes), tf.one_hot(targets, classes)
    return tf.concat([named * wanted, named, wanted], 1)


def macro_f1(means: Any) -> Any:
    """[k, 3 · classes] → [k]: 2·right / (named + wanted), the mean over classes; 0 for a class that never occurs."""
    right, named, wanted = tf.split(means, 3, axis=1)
    return tf.reduce_mean(tf.math.divide_no_nan(2.0 * right, named + wanted), 1)
