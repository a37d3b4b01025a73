"""How TensorFlow runs in a trainer, and the device that it was given."""

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


def configure() -> None:
    """Set how TensorFlow runs in this process. Call it before TensorFlow does anything.

    It uses as many threads as there are lanes. Small models gain nothing from threads within an operation, but an XLA
    program runs as often at the same time as there are such threads. They must not spin while they wait: two that did
    cost a third more CPU time (64-64-10 on digits, 31 ms a trial where one thread and two that sleep take 24).

    Its memory optimizer is off. In a graph that it expects to hold more than 0.8 of 256 MB, which it takes for the
    memory of any CPU, it adds up three tensors and more in a TemporaryVariable, under the node's name in a container
    that all calls of all programs share. A sum in a branch of `tf.cond` that is not taken leaves its variable behind,
    and the next call fails (AlreadyExistsError); so does one of two lanes that come to the same sum at once. Such sums
    can't be avoided: TensorFlow makes them of additions and of gradients. See docs/adr/0023-no-memory-optimizer.md.

    Raises:
        RuntimeError: TensorFlow was in use already.
    """
    config = tf.compat.v1.ConfigProto()
    config.experimental.disable_thread_spinning = True
    rewriting = config.graph_options.rewrite_options
    rewriting.memory_optimization = rewriting.NO_MEM_OPT
    try:
        # TensorFlow 2 takes such a configuration here alone, and only while its context is yet to be made.
        tf.compat.v1.disable_eager_execution()
        tf.compat.v1.enable_eager_execution(config=config)
    except (ValueError, AttributeError) as error:  # the latter while it words the former (TensorFlow 2.21)
        raise RuntimeError("Expected to configure TensorFlow before its first use. It was in use already.") from error
    tf.config.threading.set_intra_op_parallelism_threads(lanes())
    tf.config.threading.set_inter_op_parallelism_threads(lanes())


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
