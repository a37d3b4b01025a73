"""Errors of the framework's own in this process: after one nothing that runs here is to be trusted.

What fails in the middle of a program may leave something behind in TensorFlow's shared state that fails the next one,
whose fault it isn't. So the first such error counts, as that of the members whose call it ended; its trainer trains its
stack to the end and is replaced. Members that another one fails meanwhile are tried again elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from worker.trainer.trainable import TryElsewhere
from worker.training.determinism import explained, lacks_kernel
from worker.training.wording import essence, in_words


class Faults:
    """The first error of the framework's own. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.first: Exception | None = None

    @property
    def words(self) -> str | None:
        """What the first one says; None where there was none."""
        first = self.first
        return f"{type(first).__name__}: {essence(first)}" if isinstance(first, tf.errors.OpError) else None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what is raised within."""
        try:
            yield
        except tf.errors.OpError as error:
            with self._lock:
                if self.first is None and is_fault(error):
                    self.first = error
            raise

    def judged(self, error: Exception) -> Exception:
        """What ends a member whose call raised `error`: that, in words; where it may be innocent, another attempt."""
        if is_fault(error) and error is not self.first:
            return TryElsewhere(f"After {self.words} came {type(error).__name__}.")
        return in_words(explained(error))


def is_fault(error: Exception) -> bool:
    """Whether an error is the framework's own: not memory that is short, or a kernel that a device lacks."""
    is_known = isinstance(error, tf.errors.ResourceExhaustedError) or lacks_kernel(error)
    return isinstance(error, tf.errors.OpError) and not is_known
