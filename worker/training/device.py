"""TensorFlow's threads and the device that a trainer was given."""

from __future__ import annotations

import os

import tensorflow as tf

MOST_LANES = 4
"""Blocks of members that train side by side at most: each keeps a core busy."""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lanes() -> int:
    """How many blocks of members train side by side: one on a GPU, which has no idle cores."""
    return 1 if tf.config.list_physical_devices("GPU") else min(MOST_LANES, cores())


def limit_threads() -> None:
    """Let TensorFlow use as many threads as there are lanes. Call it before TensorFlow does anything.

    Small models gain nothing from threads within an operation, but an XLA program runs as often at the same time as
    there are such threads. They must not spin while they wait: two that did cost a third more CPU time (64-64-10 on
    digits, 31 ms a trial where one thread and two that sleep take 24).

    Raises:
        RuntimeError: TensorFlow has already started its threads.
    """
    _let_threads_sleep()
    tf.config.threading.set_intra_op_parallelism_threads(lanes())
    tf.config.threading.set_inter_op_parallelism_threads(lanes())


def _let_threads_sleep() -> None:
    """Set `disable_thread_spinning`, for which TensorFlow 2 has no public setting; without effect where it is moved."""
    try:
        from tensorflow.core.protobuf import config_pb2
        from tensorflow.python.eager import context

        options = config_pb2.ConfigProto()
        options.experimental.disable_thread_spinning = True
        context.context()._config = options
    except (ImportError, AttributeError):
        return


def require_device(label: str) -> None:
    """Return where TensorFlow sees the device that the trainer was given.

    Raises:
        RuntimeError: it was given a GPU and sees none, or several.
    """
    seen = tf.config.list_physical_devices("GPU")
    if label.startswith("gpu") and len(seen) != 1:
        raise RuntimeError(
            f"Expected TensorFlow to see one GPU for device {label!r}. Received: {len(seen)}. Install "
            "tensorflow[and-cuda] with a driver that fits it, or start the worker with --device cpu."
        )
