"""Fresh weights from a member's seed: the same numbers in every slot, at every width and on every device."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from worker.training.models import Architecture
from worker.training.models.variables import VariableSpec

WEIGHTS_STREAM, SHUFFLE_STREAM = 0, 1
"""What a member's seed is joined with, so that weights and shuffling draw from independent streams."""

EMBEDDING_LIMIT = 0.05
"""Embeddings start uniform between minus this and this: Keras' `uniform`."""
CONSTANTS = {"bias": 0.0, "gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0}
"""What variables other than kernels start from, as Keras' layers do."""


def fresh_weights(architecture: Architecture, seed: int) -> NDArray[np.float32]:
    """The weights of a new member end to end, [P] float32: Glorot-uniform kernels, zero biases, unit gammas.

    Kernels are uniform within ±√(6 / (fan_in + fan_out)) (Glorot and Bengio 2010), embeddings within ±0.05: Keras'
    defaults.
    """
    random = np.random.default_rng([seed, WEIGHTS_STREAM])
    return _joined([_started(v, random) for v in architecture.weights])


def fresh_statistics(architecture: Architecture) -> NDArray[np.float32]:
    """The moving statistics of a new member end to end, [S] float32: means 0, variances 1."""
    return _joined([_constant(v) for v in architecture.statistics])


def shuffled(seed: int, epoch: int, samples: int) -> NDArray[np.int32]:
    """The order of the training samples in a member's `epoch`, [samples] int32: a permutation of its own."""
    return np.random.default_rng([seed, SHUFFLE_STREAM, epoch]).permutation(samples).astype(np.int32)


def limit_of(variable: VariableSpec) -> float | None:
    """The largest number that a variable may start with, which is uniform up to it; None where it starts constant."""
    if variable.kind == "embedding":
        return EMBEDDING_LIMIT
    return math.sqrt(6.0 / sum(variable.fans)) if variable.kind == "kernel" else None


def _started(variable: VariableSpec, random: np.random.Generator) -> NDArray[np.float32]:
    limit = limit_of(variable)
    if limit is None:
        return _constant(variable)
    return (random.random(variable.size, np.float32) * 2.0 - 1.0) * np.float32(limit)


def _constant(variable: VariableSpec) -> NDArray[np.float32]:
    return np.full(variable.size, CONSTANTS[variable.kind], np.float32)


def _joined(pieces: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate([*pieces, np.zeros(0, np.float32)])
