"""Random changes of training samples, each member's own: at inference and in exported models there are none.

A member's changes are a hash of its seed, its count of steps and the sample's place in the batch (`randomness`): they
don't depend on its slot, the width, its neighbours or the compiler.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from worker.training.models.layers import Augmented
from worker.training.randomness import uniform

PLACES_STREAM, NOISE_STREAM = 1, 2
"""Streams of random numbers beside that of dropout masks."""
DRAWS = 5
"""Numbers drawn for a sample: a flip, and a length or a place each way of what is moved and what is masked."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What is done to the batches of K members at one step.

    `amounts` are the hyperparameters `augment_*` by the rest of their name, [K] float32; `places` and `noise` are
    scalars that say whether anybody wants any. `seeds` and `counts` are [K] int64.
    """

    amounts: Mapping[str, Any]
    places: Any
    noise: Any
    seeds: Any
    counts: Any

    def __call__(self, x: Any, kind: Augmented) -> Any:
        """`x`, [K, B, height, width, channels] float32, changed: images, or spectrograms of frames × bands."""
        replaced = self._image if kind == "image" else self._spectrogram
        x = tf.cond(self.places, lambda: replaced(x), lambda: x)
        return tf.cond(self.noise, lambda: self._noisy(x), lambda: x)

    def _image(self, x: Any) -> Any:
        """Mirrored, moved and with a square masked (DeVries and Taylor 2017), which may lie partly outside."""
        height, width = x.shape[2:4]
        flip, down, right, middle_row, middle_column = self._draws(x)
        rows = _moved(height, self._shift(down, height))
        columns = _moved(width, self._shift(right, width))
        mirrored = flip < self._amount("flip")
        columns = tf.where(mirrored[..., tf.newaxis], width - 1 - columns, columns)
        x = _taken(x, rows, columns)
        masked = (
            self._square(middle_row, height)[..., tf.newaxis] & self._square(middle_column, width)[:, :, tf.newaxis]
        )
        return _masked(x, masked)

    def _spectrogram(self, x: Any) -> Any:
        """Moved in time, with frames in a row and bands in a row masked (SpecAugment, Park et al. 2019)."""
        frames, bands = x.shape[2:4]
        shift, frame_length, frame_place, band_length, band_place = self._draws(x)
        columns = tf.broadcast_to(tf.range(bands), [*shift.shape, bands])
        x = _taken(x, _moved(frames, self._shift(shift, frames)), columns)
        in_time = _run(frames, self._pixels("time_mask", frames), frame_length, frame_place)
        in_bands = _run(bands, self._pixels("band_mask", bands), band_length, band_place)
        return _masked(x, in_time[..., tf.newaxis] | in_bands[:, :, tf.newaxis])

    def _noisy(self, x: Any) -> Any:
        """With normal noise on each number, by Box and Muller's transform (1958)."""
        count = math.prod(x.shape[1:])
        half = -(-count // 2)
        u = uniform(self.seeds, self.counts, 2 * half, NOISE_STREAM)
        radius = tf.sqrt(-2.0 * tf.math.log(1.0 - u[:, :half]))
        angle = (2.0 * math.pi) * u[:, half:]
        normal = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], 1)[:, :count]
        deviation = tf.reshape(self.amounts["noise"], [-1] + [1] * (len(x.shape) - 1))
        return x + deviation * tf.reshape(normal, x.shape)

    def _draws(self, x: Any) -> list[Any]:
        """Numbers from 0 to 1, each [K, B]."""
        members, batch = x.shape[:2]
        draws = uniform(self.seeds, self.counts, batch * DRAWS, PLACES_STREAM)
        found: list[Any] = tf.unstack(tf.reshape(draws, [members, batch, DRAWS]), axis=2)
        return found

    def _amount(self, name: str) -> Any:
        return self.amounts[name][:, tf.newaxis]

    def _pixels(self, name: str, size: int) -> Any:
        """An amount that is a share of `size`, as a whole number, [K, 1] int32."""
        return tf.cast(tf.round(self._amount(name) * float(size)), tf.int32)

    def _shift(self, draw: Any, size: int) -> Any:
        """By how many pixels each sample is moved, [K, B] int32: all from one end to the other are as likely."""
        most = self._pixels("shift", size)
        return _whole(draw, 2 * most + 1) - most

    def _square(self, draw: Any, size: int) -> Any:
        """Which of `size` pixels a square covers whose middle is any of them, [K, B, size] bool."""
        edge = self._pixels("cutout", size)
        return _within(size, _whole(draw, size) - edge // 2, edge)


def _whole(draw: Any, count: Any) -> Any:
    """Whole numbers below `count` of draws from 0 to 1, int32."""
    return tf.minimum(tf.cast(draw * tf.cast(count, tf.float32), tf.int32), count - 1)


def _moved(size: int, shift: Any) -> Any:
    """Which pixel each of `size` pixels shows, [K, B, size] int32; beyond the edge the edge is repeated."""
    return tf.clip_by_value(tf.range(size) - shift[..., tf.newaxis], 0, size - 1)


def _run(size: int, most: Any, length_draw: Any, place_draw: Any) -> Any:
    """Which of `size` places a run covers, [K, B, size] bool: of 0 to `most` in a row, anywhere."""
    length = _whole(length_draw, most + 1)
    return _within(size, _whole(place_draw, size - length + 1), length)


def _within(size: int, start: Any, length: Any) -> Any:
    places = tf.range(size)
    return (places >= start[..., tf.newaxis]) & (places < (start + length)[..., tf.newaxis])


def _taken(x: Any, rows: Any, columns: Any) -> Any:
    """Pixel (rows, columns) of each sample, as an image of the same size. `rows` is [K, B, height], and so on."""
    members, batch, height, width, channels = x.shape
    places = tf.reshape(rows[..., tf.newaxis] * width + columns[:, :, tf.newaxis], [members * batch, height * width])
    pixels = tf.reshape(x, [members * batch, height * width, channels])
    return tf.reshape(tf.gather(pixels, places, axis=1, batch_dims=1), x.shape)


def _masked(x: Any, masked: Any) -> Any:
    """The sample's own mean where it is masked, [K, B, height, width]."""
    return tf.where(masked[..., tf.newaxis], tf.reduce_mean(x, [2, 3], keepdims=True), x)
