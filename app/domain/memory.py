"""What a trial is expected to hold in its device's memory, from its hyperparameters alone.

A rough figure, meant to tell a trial that can't fit from one that can: what a framework needs besides, and what its
compiler saves, are not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.domain.datasets import Dataset
from app.domain.families import Scalar
from app.domain.size import largest, parameter_estimate
from app.domain.space import Categorical, Float, Int

FLOAT_BYTES = 4
"""Weights, statistics and slots are float32 in every precision; half-precision activations are counted as float32."""
WEIGHT_COPIES = 8
"""How often a trial holds its weights: as they were and are, their gradient, two slots before and after, the best
epoch's."""
ACTIVATION_COPIES = 3
"""How often a batch's activations are held: as they are, their gradients, and what is computed from them."""
MB = 1e6


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """In MB (10⁶ bytes): the largest trial of a space, and the data set, which all trials of a worker share."""

    largest_trial_mb: float
    dataset_mb: float


def trial_bytes(weights: int, activations: int, batch_size: int) -> int:
    """What one trial holds: `activations` are numbers for a sample, `batch_size` samples go through at once."""
    return FLOAT_BYTES * (WEIGHT_COPIES * weights + ACTIVATION_COPIES * activations * batch_size)


def memory_estimate(
    family: str, hyperparameters: Mapping[str, Float | Int | Categorical | Scalar], dataset: Dataset
) -> MemoryEstimate | None:
    """The estimate for the largest trial of a space; None where the family is not sized ahead of its trials."""
    high = {name: int(largest(value)) for name, value in hyperparameters.items()}
    activations = _activations(family, high, dataset)
    weights = parameter_estimate(family, dict(hyperparameters), dataset)
    if activations is None or weights is None:
        return None
    batch = min(high["batch_size"], dataset.rows)
    stored = FLOAT_BYTES * dataset.rows * (dataset.features + 1)
    return MemoryEstimate(round(trial_bytes(weights, activations, batch) / MB, 6), round(stored / MB, 6))


def _activations(family: str, high: Mapping[str, int], dataset: Dataset) -> int | None:
    """Numbers that the layers of the largest network give for a sample, a convolution's patches included."""
    if family == "mlp":
        return high["hidden_layers"] * high["units"] + dataset.outputs
    if family != "image-cnn":
        return None
    height, width, channels = dataset.shape
    total, filters = 0, high["filters"]
    for _ in range(high["conv_layers"]):
        # Without pooling, which only some trials of the space may have.
        total += height * width * (filters + high["kernel_size"] * channels)
        channels, filters = filters, 2 * filters
    return total + high["dense_units"] + dataset.outputs
