"""The data sets, split and prepared for training. NumPy and scikit-learn alone.

Features are kept twice over in meaning, once in memory: *raw*, as the data set has them and as an exported model takes
them, and *prepared*, as the network is trained on them. `Preparation` says how one becomes the other, so that the
exported model can do it inside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.domain.families import Task
from app.domain.study import DatasetSpec
from worker.conversation import Refused
from worker.training.shapes import IMAGES, SHAPES, SIDE, shapes

InputKind = Literal["vector", "image"]
Floats = NDArray[np.float32]

PIXEL_MAXIMA = {"digits": 16.0, "shapes": 1.0}
"""The brightest value that a pixel of each image data set may have."""

CACHED_SPLITS = 8
"""Prepared splits kept in memory; the largest takes 20 MB, the others less than a megabyte."""


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What is known of a data set without loading it. `shape` is a sample's; images are height × width × channels.

    `classes` are the labels' names in the order of the model's outputs, empty for regression. `n` counts samples.
    """

    name: str
    task: Task
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    n: int


DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo("digits", "classification", (8, 8, 1), tuple("0123456789"), 1797),
        DatasetInfo("breast-cancer", "classification", (30,), ("malignant", "benign"), 569),
        DatasetInfo("wine", "classification", (13,), ("class_0", "class_1", "class_2"), 178),
        DatasetInfo("diabetes", "regression", (10,), (), 442),
        DatasetInfo("shapes", "classification", (SIDE, SIDE, 1), tuple(SHAPES), IMAGES),
    )
}
"""The data sets by name: scikit-learn's `load_*` and `shapes`, none of which needs the network."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """How raw features become what the network is trained on: `(x - mean) / deviation`, or `x · scale` for images.

    `mean` and `variance`, [features] float32, are the training part's and None for images. Targets of a regression are
    standardised with `target_mean` and `target_deviation` (0 and 1 for classes).
    """

    scale: float
    mean: Floats | None = None
    variance: Floats | None = None
    target_mean: float = 0.0
    target_deviation: float = 1.0


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a split. `x` is [n, …] float32; `y` is [n], int32 classes or float32 targets."""

    x: Floats
    y: NDArray[Any]

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True)
class Split:
    """A data set as a family trains on it. `train` and `validation` are prepared, `test` is raw and may be empty."""

    info: DatasetInfo
    shape: tuple[int, ...]
    preparation: Preparation
    train: Part
    validation: Part
    test: Part

    @property
    def outputs(self) -> int:
        """Numbers that a network gives for a sample: one a class, or the value."""
        return max(1, len(self.info.classes))


def describe(name: str) -> DatasetInfo:
    """What is known of the bundled data set `name`.

    Raises:
        Refused: there is none of that name.
    """
    if name not in DATASETS:
        raise Refused(f"Expected a data set among: {', '.join(DATASETS)}. Received: {name!r}")
    return DATASETS[name]


@lru_cache(maxsize=CACHED_SPLITS)
def load_split(spec: DatasetSpec, kind: InputKind) -> Split:
    """The data set of `spec`, split by its seed (stratified for classes) and prepared, the same on every worker.

    Each part has the next whole number of samples above its fraction of all; at least one is left for training. Vector
    families get images flattened, scaled to 0..1 like the images; features of tables are standardised.

    Raises:
        Refused: an unknown data set, one without images for an image family, or fractions that can't be split.
    """
    info = describe(spec.name)
    if kind == "image" and len(info.shape) != 3:
        images = ", ".join(d.name for d in DATASETS.values() if len(d.shape) == 3)
        raise Refused(
            f"Expected a data set of images ({images}) for this model family. "
            f"Received: {info.name!r}, vectors of {info.shape[0]} features"
        )
    features, targets = _raw(info)
    if kind == "vector":
        features = features.reshape(len(features), -1)
    train, validation, test = _parts(info, spec, targets)

    preparation = _preparation(info, features[train], targets[train])
    x = prepared(features, preparation)
    y = targets
    if info.task == "regression":
        y = ((targets - preparation.target_mean) / preparation.target_deviation).astype(np.float32)
    return Split(
        info=info,
        shape=features.shape[1:],
        preparation=preparation,
        train=Part(x[train], y[train]),
        validation=Part(x[validation], y[validation]),
        test=Part(features[test], targets[test]),
    )


def prepared(features: Floats, preparation: Preparation) -> Floats:
    """Raw features, [n, …], as the network takes them: what Keras' Normalization or Rescaling gives inside a model."""
    if preparation.mean is None or preparation.variance is None:
        return features * np.float32(preparation.scale)
    deviation = np.maximum(np.sqrt(preparation.variance), np.float32(1e-7))
    standardised: Floats = ((features - preparation.mean) / deviation).astype(np.float32)
    return standardised


def _raw(info: DatasetInfo) -> tuple[Floats, NDArray[Any]]:
    if info.name == "shapes":
        images, labels = shapes()
        return images.reshape(-1, *info.shape), labels
    from sklearn import datasets

    load = getattr(datasets, f"load_{info.name.replace('-', '_')}")
    features, targets = load(return_X_y=True)
    features = np.ascontiguousarray(features, np.float32).reshape(-1, *info.shape)
    return features, targets.astype(np.int32 if info.task == "classification" else np.float32)


def _parts(info: DatasetInfo, spec: DatasetSpec, targets: NDArray[Any]) -> tuple[Any, Any, Any]:
    """The sample numbers of training, validation and test part."""
    from sklearn.model_selection import train_test_split

    validation_count = math.ceil(spec.validation_fraction * info.n)
    test_count = math.ceil(spec.test_fraction * info.n)
    rest, test = np.arange(info.n), np.arange(0)

    def seeded(samples: Any) -> dict[str, Any]:
        strata = targets[samples] if info.task == "classification" else None
        return {"random_state": spec.split_seed, "stratify": strata}

    try:
        if validation_count + test_count >= info.n:
            raise ValueError("nothing is left for training")
        if test_count:
            rest, test = train_test_split(rest, test_size=test_count, **seeded(rest))
        train, validation = train_test_split(rest, test_size=validation_count, **seeded(rest))
    except ValueError as error:
        raise Refused(
            f"Expected fractions that leave every part some samples of every class: {error}. "
            f"Received: {info.n} samples, validation_fraction={spec.validation_fraction}, "
            f"test_fraction={spec.test_fraction}"
        ) from error
    return train, validation, test


def _preparation(info: DatasetInfo, features: Floats, targets: NDArray[Any]) -> Preparation:
    if len(info.shape) == 3:
        return Preparation(scale=1.0 / PIXEL_MAXIMA[info.name])
    mean, variance = features.mean(0, dtype=np.float64), features.var(0, dtype=np.float64)
    target_mean, target_deviation = 0.0, 1.0
    if info.task == "regression":
        target_mean, target_deviation = float(targets.mean()), float(targets.std()) or 1.0
    return Preparation(1.0, mean.astype(np.float32), variance.astype(np.float32), target_mean, target_deviation)
