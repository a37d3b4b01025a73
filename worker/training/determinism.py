"""The same numbers in every run: operations whose sums have one order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf
from tensorflow.python.framework import config

from worker.training.wording import essence


@contextmanager
def deterministic_operations(wanted: bool) -> Iterator[None]:
    """Have TensorFlow take deterministic kernels, where `wanted`; one that has none raises as it runs.

    TensorFlow can turn this on, not off, by its public interface; elsewhere it is turned off by the one beneath.
    """
    if not wanted:
        yield
        return
    tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        # Only the public name for turning it on is promised; without the other one it stays on in this trainer.
        turn_off = getattr(config, "disable_op_determinism", None)
        if turn_off is not None:
            turn_off()


class NotDeterministic(Exception):
    """An operation of a deterministic study has no deterministic kernel on its device."""


def lacks_kernel(error: Exception) -> bool:
    """Whether an operation of a deterministic study has no deterministic kernel."""
    return isinstance(error, tf.errors.UnimplementedError) and "determinis" in str(error).lower()


def explained(error: Exception) -> Exception:
    """`error`, or in its place one that says what to do where an operation has no deterministic kernel."""
    if not lacks_kernel(error):
        return error
    told = NotDeterministic(
        "Expected operations that have deterministic kernels on this device, for training.deterministic: train on "
        f"a CPU, or without it. TensorFlow says: {essence(error)}"
    )
    told.__cause__ = error
    return told
