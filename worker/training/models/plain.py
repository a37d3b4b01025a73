"""Blocks as built-in Keras layers: the exported model, and the reference that the stacked blocks are tested against."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from worker.training.models.layers import Augmented, Pooling, VariableSpec
from worker.training.models.plain_sequences import PlainSequences


class Plain(PlainSequences):
    """Makes the layers of one member, whose `activation`, `dropout`, `l1` and `l2` are plain numbers here.

    Layers with weights are named by what they are and a number that counts them: Keras lists the layers of a network
    that branches by their depth, and not in the order in which they were made (`variables_in_order`).
    """

    def flatten(self, x: Any) -> Any:
        return keras.layers.Flatten()(x)

    def dense(self, x: Any, units: int) -> Any:
        return keras.layers.Dense(units, kernel_regularizer=self._regularizer(), name=self._name("dense"))(x)

    def convolution(self, x: Any, filters: int, kernel_size: int, stride: int = 1) -> Any:
        layer = keras.layers.Conv2D(
            filters,
            kernel_size,
            stride,
            padding="same",
            kernel_regularizer=self._regularizer(),
            name=self._name("convolution"),
        )
        return layer(x)

    def pooling(self, x: Any, kind: Pooling) -> Any:
        return keras.layers.MaxPooling2D(2)(x) if kind == "max" else keras.layers.AveragePooling2D(2)(x)

    def global_pooling(self, x: Any, kind: Pooling, mask: Any = None) -> Any:
        layers = keras.layers
        if mask is not None:
            return self._masked_pooling(x, kind, mask)
        if len(x.shape) == 3:
            return (layers.GlobalMaxPooling1D if kind == "max" else layers.GlobalAveragePooling1D)()(x)
        return (layers.GlobalMaxPooling2D if kind == "max" else layers.GlobalAveragePooling2D)()(x)

    def add(self, x: Any, y: Any) -> Any:
        return keras.layers.Add()([x, y])

    def augmentation(self, x: Any, kind: Augmented) -> Any:  # noqa: ARG002 - there is none at inference
        return x

    def batch_norm(self, x: Any) -> Any:
        return keras.layers.BatchNormalization(name=self._name("batch_norm"))(x)

    def activation(self, x: Any) -> Any:
        return keras.layers.Activation(str(self.hyperparameters["activation"]))(x)

    def dropout(self, x: Any) -> Any:
        rate = float(self.hyperparameters["dropout"])
        return keras.layers.Dropout(rate)(x) if rate else x


def variables_in_order(model: Any) -> tuple[list[Any], list[Any]]:
    """The trained variables of a model of `Plain`'s layers, and its moving statistics, as the builder meets them."""
    # Dropout layers keep the state of their random generator among the variables that are not trained.
    kept = [v for v in model.non_trainable_variables if "seed_generator" not in v.path]
    trained, statistics = (sorted(variables, key=_number) for variables in (model.trainable_variables, kept))
    return trained, statistics


def _number(variable: Any) -> int:
    """The number in the name of a variable's layer: the first part of its path, which ends in one."""
    return int(variable.path.split("/")[0].rsplit("_", 1)[1])


def split_flat(flat: NDArray[np.float32], variables: tuple[VariableSpec, ...]) -> list[NDArray[np.float32]]:
    """The variables of one member, laid end to end in `flat`, in their own shapes."""
    ends = np.cumsum([v.size for v in variables], dtype=np.int64)[:-1]
    pieces = np.split(flat, ends) if variables else []
    return [piece.reshape(v.shape) for piece, v in zip(pieces, variables, strict=True)]
