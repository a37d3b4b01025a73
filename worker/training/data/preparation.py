"""How raw features become what a network is trained on, outside an exported model and inside it.

*Raw* features are as the data set has them, and as an exported model takes them. A preparation is fitted to the
training part alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.domain.families import InputKind, Scalar
from worker.training.data.sources import DatasetInfo
from worker.training.data.spectrogram import fit_log_mel
from worker.training.data.tables import MATRIX, Scale, Table, fit_scale, fit_table, is_constant
from worker.training.data.texts import Vocabulary, fit_texts

Floats = NDArray[np.float32]
SHOWN_NAMES = 20
"""Columns that a warning names."""


class Preparation(Protocol):
    """What is done to features before the network sees them."""

    def prepared(self, features: NDArray[Any]) -> NDArray[Any]:
        """Raw features, [n, …], as the network takes them: what `layers` give inside a model."""
        ...

    def layers(self) -> list[Any]:
        """The built-in Keras layers that do the same inside a model, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Scaled:
    """Images: `x · scale`, so that pixels run from 0 to 1."""

    scale: float

    def prepared(self, features: NDArray[Any]) -> Floats:
        scaled: Floats = features.astype(np.float32) * np.float32(self.scale)
        return scaled

    def layers(self) -> list[Any]:
        import keras

        return [keras.layers.Rescaling(self.scale)]


@dataclass(frozen=True, slots=True)
class Standardised:
    """Vectors, by the means and deviations, or bounds, of the training part."""

    scale: Scale

    def prepared(self, features: NDArray[Any]) -> Floats:
        return self.scale(features)

    def layers(self) -> list[Any]:
        return self.scale.layers()


@dataclass(frozen=True, slots=True)
class DataWarning:
    """Something about a study's data that its owner should know."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Targets:
    """How targets of a regression are standardised: `(y - mean) / deviation`; 0 and 1 for classes."""

    mean: float = 0.0
    deviation: float = 1.0

    def prepared(self, targets: NDArray[Any]) -> NDArray[Any]:
        """Targets, [n], as the network is trained on them; classes stay as they are."""
        if not np.issubdtype(targets.dtype, np.floating):
            return targets
        standardised: Floats = ((targets - self.mean) / self.deviation).astype(np.float32)
        return standardised


def targets_of(info: DatasetInfo, targets: NDArray[Any], training: NDArray[np.int64]) -> Targets:
    """What standardises the targets: those of the training part; where all of them are the same, those of all rows."""
    if info.task == "classification":
        return Targets()
    mine = targets[training]
    if _is_constant(mine):
        return Targets(float(mine[0]), 1.0 if _is_constant(targets) else float(targets.std(dtype=np.float64)))
    return Targets(float(mine.mean()), float(mine.std()))


def _is_constant(values: NDArray[Any]) -> bool:
    return bool(is_constant(values.min().astype(np.float64), values.max().astype(np.float64)))


def warnings_of(
    info: DatasetInfo, preparation: Preparation, targets: NDArray[Any], training: NDArray[np.int64]
) -> tuple[DataWarning, ...]:
    """What a study should be told of the data's training part."""
    found = []
    scale = preparation.scale if isinstance(preparation, Standardised | Table) else None
    if scale is not None and not scale.varies.all():
        columns = preparation.numeric if isinstance(preparation, Table) else ()
        names = [columns[i].name if columns else f"feature {i}" for i in np.flatnonzero(~scale.varies)]
        shown = ", ".join(names[:SHOWN_NAMES]) + (f" and {len(names) - SHOWN_NAMES} more" * (len(names) > SHOWN_NAMES))
        found.append(
            DataWarning(
                "CONSTANT_COLUMN",
                f"{info.name}: the same in all rows of the training part, and left out of what networks get: {shown}.",
            )
        )
    if info.task == "regression" and _is_constant(targets[training]):
        found.append(
            DataWarning("CONSTANT_TARGET", f"{info.name}: the target is the same in all rows of the training part.")
        )
    return tuple(found)


def fit_vectors(info: DatasetInfo, training: NDArray[Any], options: Mapping[str, Scalar]) -> Preparation:
    """Vectors and tables are normalised, by `normalization`; flattened images are scaled like images, or left alone."""
    if info.kind == "image":
        return Scaled(1.0) if options.get("normalization") == "none" else fit_images(info, training, options)
    if info.columns:
        return fit_table(info, training, options)
    scale = fit_scale(training, options.get("normalization", "standard"))
    return Standardised(scale)


def fit_images(info: DatasetInfo, training: NDArray[Any], options: Mapping[str, Scalar]) -> Preparation:  # noqa: ARG001
    """Pixels are scaled by the data set's brightest possible value."""
    return Scaled(1.0 / info.maximum)


def model_entry(preparation: Preparation, raw_shape: tuple[int, ...]) -> tuple[Any, Any]:
    """What an exported model takes, and the prepared features that come of it."""
    import keras

    if isinstance(preparation, Table):
        return preparation.entry()
    kind = "string" if isinstance(preparation, Vocabulary) else "float32"
    features = x = keras.Input(raw_shape, name=MATRIX, dtype=kind)
    for layer in preparation.layers():
        x = layer(x)
    return features, x


@dataclass(frozen=True, slots=True)
class Fit:
    """How the features of one kind of input are prepared, by the raw training part and the data's hyperparameters.

    `options` are the structural hyperparameters that shape the prepared data: they are part of what a split is kept by.
    """

    fit: Callable[[DatasetInfo, NDArray[Any], Mapping[str, Scalar]], Preparation]
    options: tuple[str, ...] = ()


FITS: dict[InputKind, Fit] = {
    "vector": Fit(fit_vectors, ("normalization",)),
    "image": Fit(fit_images),
    "text": Fit(fit_texts, ("tokens", "max_length", "vocabulary_size")),
    "audio": Fit(fit_log_mel, ("frame_length", "frame_step", "mel_bands")),
}
"""What prepares the features of a family's kind of input."""
