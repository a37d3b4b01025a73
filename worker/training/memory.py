"""What training holds in memory: whether a trial fits its device, and the true peak afterwards."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import tensorflow as tf

from app.domain.memory import MB, trial_bytes
from worker.trainer.trainable import Refused
from worker.training.signature import Signature

RESET_PEAK = "5"
"""What makes Linux forget a process' peak of resident memory (proc_pid_clear_refs(5))."""
GPU = "GPU:0"


def required_mb(signature: Signature) -> float:
    """What one trial of a signature, alone, is expected to hold beside the data set, in MB.

    Raises:
        Refused: the data set or the network is impossible.
    """
    layout = signature.network(xla=False).architecture
    batch = min(int(signature.hyperparameters["batch_size"]), len(signature.split().train))
    return trial_bytes(layout.weight_count, layout.activation_count, batch) / MB


def dataset_mb(signature: Signature) -> float:
    """What the data set of a signature takes on the device, in MB."""
    split = signature.split()
    return sum(values.nbytes for part in (split.train, split.validation) for values in (part.x, part.y)) / MB


def check_fits(signature: Signature, memory_mb: float | None) -> None:
    """Check that a trial of a signature fits a device of so much memory; nothing where that is not known.

    Raises:
        Refused: it needs more, or the network is impossible.
    """
    if memory_mb is None:
        return
    trial, data = required_mb(signature), dataset_mb(signature)
    if trial + data > memory_mb:
        raise Refused(
            f"Expected a trial that fits the {memory_mb:,.0f} MB of its device. Received one that needs about "
            f"{trial:,.0f} MB, and {data:,.0f} MB for the data set: use fewer or smaller layers, or a smaller "
            "batch_size with more gradient_accumulation_steps."
        )


class PeakMemory:
    """The most memory that was held since it was made: of the GPU, else of this process, its framework included.

    It is that of all that trains here: members of a stack have one peak.
    """

    def __init__(self) -> None:
        self._on_gpu = bool(tf.config.list_physical_devices("GPU"))
        if self._on_gpu:
            tf.config.experimental.reset_memory_stats(GPU)
            return
        # Where the kernel doesn't let us, the peak is that of the process' whole life.
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text(RESET_PEAK, encoding="ascii")

    def mb(self) -> float:
        """The peak so far, in MB (10⁶ bytes)."""
        if self._on_gpu:
            return float(tf.config.experimental.get_memory_info(GPU)["peak"]) / MB
        with suppress(OSError):
            for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / MB
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB
