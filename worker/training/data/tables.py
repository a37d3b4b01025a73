"""Tables with named columns: numbers are normalised, categories become one-hot, empty cells are filled and marked.

Everything is learned from the training part alone: means, bounds, and which values a category has. A value that the
training part has not is unknown, and all of its category's numbers are 0. A number that is the same in all of the
training part says nothing, and is always 0.

Prepared rows are, side by side: the numbers and truth values in the order of the columns; a mark, 1 where the cell was
empty, for each of them that has empty cells anywhere; then each category, whose first number is always 0: it stands for
unknown values.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.datasets import Column
from app.domain.families import Scalar
from worker.training.data.cells import as_uploaded, one_hot
from worker.training.data.sources import DatasetInfo

Floats = NDArray[np.float32]
MATRIX = "raw_features"
"""The name of the one input of a model whose columns are all numbers."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How numbers are normalised: `(x - shift) / √variance`, both [k] float32, as Keras' Normalization does it.

    What does not vary, [k] bool, in the training part is left out: it becomes 0 whatever it is. There is nothing to
    scale it by, and a network learns nothing from it.
    """

    shift: Floats
    variance: Floats
    varies: NDArray[np.bool_]

    def __call__(self, x: NDArray[Any]) -> Floats:
        deviation = np.maximum(np.sqrt(self.variance), np.float32(SMALLEST_DEVIATION))
        scaled: Floats = np.where(self.varies, (x - self.shift) / deviation, 0.0).astype(np.float32)
        return scaled

    def layers(self) -> list[Any]:
        """The built-in Keras layers that do it, in order."""
        import keras

        normalize = keras.layers.Normalization(mean=self.shift, variance=self.variance)
        if self.varies.all():
            return [normalize]
        return [normalize, keras.layers.Rescaling(self.varies.astype(float).tolist())]


SMALLEST_DEVIATION = 1e-7
"""What Keras' Normalization divides by at least."""
ROUNDING = 2
"""Units in the last place of a float32 that the same number may differ by, once it was calculated in two ways."""


def fit_scale(x: NDArray[Any], normalization: Scalar) -> Scale:
    """What normalises the columns of `x`, [n, k] without NaN: `standard`, `minmax` (to 0 and 1), or `none`."""
    if normalization == "none":
        return Scale(np.zeros(x.shape[1], np.float32), np.ones(x.shape[1], np.float32), np.ones(x.shape[1], bool))
    low, high = x.min(0).astype(np.float64), x.max(0).astype(np.float64)
    varies = ~is_constant(low, high)
    if normalization == "minmax":
        shift, variance = low, np.square(high - low)
    else:
        shift, variance = x.mean(0, dtype=np.float64), x.var(0, dtype=np.float64)
    return Scale(shift.astype(np.float32), np.where(varies, variance, 1.0).astype(np.float32), varies)


def is_constant(low: NDArray[np.float64], high: NDArray[np.float64]) -> Any:
    """Whether numbers from `low` to `high` are one and the same, as far as float32 can tell them apart."""
    return high - low <= ROUNDING * np.spacing(np.maximum(np.abs(low), np.abs(high)).astype(np.float32))


@dataclass(frozen=True, slots=True)
class Table:
    """The columns of a table as a network takes them.

    `numeric` are numbers and truth values, `fill`, [k], what stands for their empty cells, `marked` which of them have
    a mark. `categories` have their `vocabularies`, the values of the training part.
    """

    columns: tuple[Column, ...]
    fill: Floats
    scale: Scale
    marked: tuple[int, ...]
    vocabularies: tuple[tuple[str, ...], ...]

    @property
    def numeric(self) -> tuple[Column, ...]:
        """Numbers and truth values."""
        return tuple(c for c in self.columns if c.type != "category")

    @property
    def categories(self) -> tuple[Column, ...]:
        """Categories."""
        return tuple(c for c in self.columns if c.type == "category")

    def prepared(self, features: NDArray[Any]) -> Floats:
        """Raw rows, a matrix or structured, as [n, width] float32."""
        x = numbers_of(features, self.numeric)
        missing = np.isnan(x)
        parts = [self.scale(np.where(missing, self.fill, x)), missing[:, list(self.marked)].astype(np.float32)]
        for column, vocabulary in zip(self.categories, self.vocabularies, strict=True):
            parts.append(_one_hot(as_uploaded(features[column.name], vocabulary), vocabulary))
        return np.concatenate(parts, axis=1)

    def layers(self) -> list[Any]:
        """The layers of a chain from a matrix of numbers without empty cells; other tables have `entry` alone."""
        if self.marked or self.vocabularies:
            raise TypeError("Expected a table of numbers without empty cells. Received one that is no chain of layers.")
        return self.scale.layers()

    def entry(self) -> tuple[Any, Any]:
        """What a model takes, a matrix or a dictionary of columns by name, each [n, 1]; and the prepared rows."""
        import keras

        if not self.vocabularies:
            matrix = keras.Input((len(self.columns),), name=MATRIX)
            return matrix, self._numbers(matrix)
        inputs = {
            name: keras.Input((1,), dtype="string" if column.type == "category" else "float32", name=name)
            for column, name in zip(self.columns, input_names(self.columns), strict=True)
        }
        by_column = dict(zip((c.name for c in self.columns), inputs.values(), strict=True))
        parts = []
        if self.numeric:
            numbers = [by_column[column.name] for column in self.numeric]
            together = keras.layers.Concatenate()(numbers) if len(numbers) > 1 else numbers[0]
            parts.append(_apart(self._numbers, together, "numbers", inputs))
        for column, vocabulary in zip(self.categories, self.vocabularies, strict=True):
            make = partial(one_hot, vocabulary=vocabulary)
            parts.append(_apart(make, by_column[column.name], f"category_{len(parts)}", inputs))
        return inputs, keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]

    def _numbers(self, x: Any) -> Any:
        """Normalised numbers, and the marks."""
        import keras

        missing = keras.ops.isnan(x)
        scaled = keras.ops.where(missing, self.fill[np.newaxis], x) if self.marked else x
        for layer in self.scale.layers():
            scaled = layer(scaled)
        if not self.marked:
            return scaled
        marks = keras.ops.take(keras.ops.cast(missing, "float32"), list(self.marked), axis=1)
        return keras.layers.Concatenate()([scaled, marks])


def _apart(make: Callable[[Any], Any], x: Any, name: str, taken: Container[str]) -> Any:
    """What `make` makes of a Keras tensor, as a model within the model: no column is called like one of its parts."""
    import keras

    while name in taken:
        name += "_"
    inner = keras.Input(x.shape[1:], dtype=x.dtype)
    return keras.Model(inner, make(inner), name=name)(x)


def fit_table(info: DatasetInfo, training: NDArray[Any], options: Mapping[str, Scalar]) -> Table:
    """What prepares the rows of a table, by those of the training part."""
    numeric = [c for c in info.columns if c.type != "category"]
    x = numbers_of(training, numeric)
    missing = np.isnan(x)
    present = np.maximum((~missing).sum(0), 1)
    fill = (np.where(missing, 0.0, x).sum(0, dtype=np.float64) / present).astype(np.float32)
    scale = fit_scale(np.where(missing, fill, x), options.get("normalization", "standard"))
    for i, column in enumerate(numeric):
        if column.type == "boolean":
            scale.shift[i], scale.variance[i], scale.varies[i] = 0.0, 1.0, True
    return Table(
        columns=info.columns,
        fill=fill,
        scale=scale,
        marked=tuple(i for i, column in enumerate(numeric) if column.missing),
        vocabularies=tuple(
            tuple(np.unique(as_uploaded(training[c.name], c.values)).tolist())
            for c in info.columns
            if c.type == "category"
        ),
    )


def numbers_of(features: NDArray[Any], columns: Any) -> Floats:
    """The numeric columns of raw rows as [n, k] float32."""
    if features.dtype.names is None:
        return features.astype(np.float32, copy=False)
    stacked = [features[column.name] for column in columns]
    return np.stack(stacked, axis=1) if stacked else np.empty((len(features), 0), np.float32)


def _one_hot(values: NDArray[Any], vocabulary: tuple[str, ...]) -> Floats:
    """Strings, [n], as [n, 1 + values]: a 1 at the place of each value that is known."""
    known = np.array(vocabulary)  # in order, as NumPy gave it
    places = np.minimum(np.searchsorted(known, values), len(known) - 1)
    hot = np.zeros((len(values), 1 + len(known)), np.float32)
    hot[np.arange(len(values)), 1 + places] = known[places] == values
    return hot


def input_names(columns: tuple[Column, ...]) -> list[str]:
    """The names of a model's inputs: the columns', with an underscore for a slash, which Keras keeps for itself."""
    names: list[str] = []
    for column in columns:
        name = column.name.replace("/", "_")
        while name in names:
            name += "_"
        names.append(name)
    return names


def inputs_of(info: DatasetInfo) -> list[dict[str, Any]]:
    """What a table's model takes, in order: each column, the input that it goes to, and what it holds."""
    is_matrix = all(column.type != "category" for column in info.columns)
    names = [MATRIX] * len(info.columns) if is_matrix else input_names(info.columns)
    return [{"column": c.name, "input": n, "type": c.type} for c, n in zip(info.columns, names, strict=True)]


def model_input(features: NDArray[Any]) -> Any:
    """Raw samples as a model takes them: structured rows as a dictionary of columns, [n, 1]."""
    if features.dtype.names is None:
        return features
    import tensorflow as tf

    columns = [Column(name, "text") for name in features.dtype.names]
    named = zip(features.dtype.names, input_names(tuple(columns)), strict=True)
    return {name: tf.constant(features[column][:, np.newaxis]) for column, name in named}
