"""Where data sets come from: what is known of each, and how its samples are loaded. NumPy and scikit-learn alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.datasets import Column
from app.domain.families import InputKind, Task
from worker.trainer.trainable import Refused
from worker.training.data.docstrings import LIBRARIES, ROWS_EACH, docstrings
from worker.training.data.spoken_digits import RECORDINGS, SAMPLE_RATE, SAMPLES, WORDS, spoken_digits
from worker.training.shape_images import IMAGES, SHAPES, SIDE, shapes

Samples = tuple[NDArray[Any], NDArray[Any]]
"""Features, [n, *shape], and targets, [n] (int32 classes or float32 values), as the data set has them."""


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What is known of a data set without loading it. `shape` is a sample's; images are height × width × channels,
    a text has none.

    `classes` are the labels' names in the order of the model's outputs, empty for regression. `n` counts samples.
    `maximum` is the brightest value that a pixel of an image may have, `sample_rate` samples a second of recordings.
    `columns` are those of a table that a model takes, in order.
    """

    name: str
    task: Task
    kind: InputKind
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    n: int
    maximum: float = 1.0
    sample_rate: int = 0
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A data set: what is known of it, and what loads it.

    `groups`, where samples belong together, gives the number of each one's group, [n] int32: a speaker, a patient.
    """

    info: DatasetInfo
    load: Callable[[], Samples]
    groups: Callable[[], NDArray[np.int32]] | None = None


def describe(name: str) -> DatasetInfo:
    """What is known of the data set `name`.

    Raises:
        Refused: there is none of that name.
    """
    return source(name).info


def source(name: str) -> Source:
    """Where the data set `name` comes from.

    Raises:
        Refused: there is none of that name.
    """
    if name not in SOURCES:
        raise Refused(f"Expected a data set among: {', '.join(SOURCES)}. Received: {name!r}")
    return SOURCES[name]


def _from_scikit_learn(info: DatasetInfo) -> Samples:
    from sklearn import datasets

    load = getattr(datasets, f"load_{info.name.replace('-', '_')}")
    features, targets = load(return_X_y=True)
    features = np.ascontiguousarray(features, np.float32).reshape(-1, *info.shape)
    return features, targets.astype(np.int32 if info.task == "classification" else np.float32)


def _drawn_shapes() -> Samples:
    images, labels = shapes()
    return images.reshape(-1, SIDE, SIDE, 1), labels


def _recorded_digits() -> Samples:
    recordings, words, _ = spoken_digits()
    return recordings, words


_SCIKIT_LEARN = (
    DatasetInfo("digits", "classification", "image", (8, 8, 1), tuple("0123456789"), 1797, 16.0),
    DatasetInfo("breast-cancer", "classification", "vector", (30,), ("malignant", "benign"), 569),
    DatasetInfo("wine", "classification", "vector", (13,), ("class_0", "class_1", "class_2"), 178),
    DatasetInfo("diabetes", "regression", "vector", (10,), (), 442),
)
_SHAPES = DatasetInfo("shapes", "classification", "image", (SIDE, SIDE, 1), tuple(SHAPES), IMAGES)
_SPOKEN = DatasetInfo(
    "spoken-digits", "classification", "audio", (SAMPLES,), WORDS, RECORDINGS, sample_rate=SAMPLE_RATE
)
_DOCSTRINGS = DatasetInfo("docstrings", "classification", "text", (), tuple(LIBRARIES), ROWS_EACH * len(LIBRARIES))

SOURCES: dict[str, Source] = {
    **{info.name: Source(info, partial(_from_scikit_learn, info)) for info in _SCIKIT_LEARN},
    "docstrings": Source(_DOCSTRINGS, docstrings),
    "shapes": Source(_SHAPES, _drawn_shapes),
    "spoken-digits": Source(_SPOKEN, _recorded_digits, lambda: spoken_digits()[2]),
}
"""The data sets by name: scikit-learn's `load_*`, and what this project brings along; none needs the network."""
