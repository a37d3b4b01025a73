"""Random numbers for dropout and augmentation that are the same in every program, with and without XLA, at any width.

TensorFlow draws other numbers under XLA than without it. These are a hash of (seed, step, position): integer
arithmetic that every device does alike, and one expression for all members. The mixing function is `lowbias32` of
Wellons' hash prospector (2018), whose output bits each depend on every input bit with a bias below 0.2 %.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

GOLDEN = 0x9E3779B9
"""2³² over the golden ratio, odd: positions are spread over all 32 bits before they are mixed (Weyl's sequence)."""


def _uint32(value: int) -> Any:
    return tf.constant(value, tf.uint32)


def mixed(x: Any) -> Any:
    """A bijection of uint32 onto itself that looks random, elementwise."""
    shift = tf.bitwise.right_shift
    x = tf.bitwise.bitwise_xor(x, shift(x, _uint32(16))) * _uint32(0x7FEB352D)
    x = tf.bitwise.bitwise_xor(x, shift(x, _uint32(15))) * _uint32(0x846CA68B)
    return tf.bitwise.bitwise_xor(x, shift(x, _uint32(16)))


def uniform(seeds: Any, counts: Any, size: int, stream: int = 0) -> Any:
    """[K, size] float32, uniform in [0, 1) in steps of 2⁻²⁴.

    `seeds` and `counts` are [K] integers: a member's numbers depend on its seed and its count of steps alone.
    `stream`, a small number, tells apart what they are drawn for.
    """
    keys = mixed(tf.bitwise.bitwise_xor(tf.cast(seeds, tf.uint32), mixed(tf.cast(counts, tf.uint32) + _uint32(GOLDEN))))
    if stream:
        keys = mixed(keys + _uint32(stream))
    positions = tf.cast(tf.range(size), tf.uint32) * _uint32(GOLDEN)
    bits = mixed(positions[tf.newaxis] + keys[:, tf.newaxis])
    return tf.cast(tf.bitwise.right_shift(bits, _uint32(8)), tf.float32) * 2.0**-24
