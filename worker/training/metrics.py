"""A family's own metrics, computed in the graph of an epoch beside loss and score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

PerSample = Callable[[Any, Any], Any]
"""(outputs [n, outputs], targets [n]) → what each sample adds, [n] or [n, m] float32."""
Finish = Callable[[Any], Any]
"""Sums over all samples divided by their number, [k, m] → the metric, [k]."""


@dataclass(frozen=True)
class OwnMetric:
    """A metric made of sums over samples. `finish` None is their mean: then there is one number a sample."""

    name: str
    per_sample: PerSample
    finish: Finish | None = None


class OwnMetrics:
    """The metrics of a family, in order; most families have none."""

    def __init__(self, metrics: Sequence[OwnMetric] = (), *, classify: bool = True) -> None:
        self._metrics = tuple(metrics)
        self._classify = classify

    @property
    def names(self) -> tuple[str, ...]:
        """What they are called."""
        return tuple(metric.name for metric in self._metrics)

    def sums(self, outputs: int) -> int:
        """How many numbers are summed over the samples of a network with so many outputs."""
        return sum(self._widths(outputs))

    def sum(self, outputs: Any, targets: Any, valid: Any) -> Any:
        """The sums of a batch, [K, sums] float32.

        `outputs` is [K, B, C], `targets` [K, B], `valid` [B] of 0 for padding and 1.
        """
        members, rows = outputs.shape[0], valid.shape[0]
        if not self._metrics:
            return tf.zeros([members, 0])
        flat, wanted = tf.reshape(outputs, [members * rows, outputs.shape[-1]]), tf.reshape(targets, [members * rows])
        parts = []
        for metric in self._metrics:
            given = tf.reshape(tf.cast(metric.per_sample(flat, wanted), tf.float32), [members, rows, -1])
            # What a padded sample gives may be anything: it is left out rather than multiplied.
            kept = tf.where(valid[tf.newaxis, :, tf.newaxis] > 0, given, tf.zeros_like(given))
            parts.append(tf.reduce_sum(kept, 1))
        return tf.concat(parts, 1)

    def values(self, sums: Any, samples: int, outputs: int) -> list[Any]:
        """The metrics, each [K], from the sums over so many samples."""
        if not self._metrics:
            return []
        pieces = tf.split(sums / float(samples), self._widths(outputs), axis=1)
        return [
            piece[:, 0] if metric.finish is None else tf.reshape(metric.finish(piece), [sums.shape[0]])
            for metric, piece in zip(self._metrics, pieces, strict=True)
        ]

    def _widths(self, outputs: int) -> list[int]:
        """How many numbers each metric sums, from what it gives for one sample of zeros."""
        widths = []
        for metric in self._metrics:
            target = tf.zeros([1], tf.int32 if self._classify else tf.float32)
            given = metric.per_sample(tf.zeros([1, outputs]), target)
            widths.append(int(given.shape[-1]) if len(given.shape) > 1 else 1)
        return widths
