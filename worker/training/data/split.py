"""The parts of a data set, prepared as a family trains on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.families import InputKind, Scalar
from app.domain.study import DatasetSpec
from worker.trainer.trainable import Refused
from worker.training.data.keras_sets import KERAS_SETS, keras_source
from worker.training.data.preparation import FITS, DataWarning, Preparation, Targets, targets_of, warnings_of
from worker.training.data.sources import SOURCES, DatasetInfo, Source, source
from worker.training.data.uploads import uploaded

CACHED_SPLITS = 8
"""Prepared splits kept in memory; `shapes` takes 20 MB, the finest spectrograms 100, most less than 10."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Which of `count` folds is held out; a single one says that the data is split by the fraction."""

    index: int
    count: int


WHOLE = Fold(0, 1)


@dataclass(frozen=True)
class Part:
    """One part of a split. `x` is [n, …]; `y` is [n], int32 classes or float32 targets."""

    x: NDArray[Any]
    y: NDArray[Any]

    @cached_property
    def tensors(self) -> tuple[Any, Any]:
        """Both on the device: one copy for all programs that train on them."""
        import tensorflow as tf

        return tf.constant(self.x), tf.constant(self.y)

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True)
class Split:
    """A data set as a family trains on it. `train` and `validation` are prepared, `test` is raw and may be empty.

    `raw_shape` is a raw sample's, `shape` a prepared one's.
    """

    info: DatasetInfo
    raw_shape: tuple[int, ...]
    shape: tuple[int, ...]
    preparation: Preparation
    targets: Targets
    train: Part
    validation: Part
    test: Part
    warnings: tuple[DataWarning, ...] = ()

    @property
    def outputs(self) -> int:
        """Numbers that a network gives for a sample: one a class, or the value."""
        return max(1, len(self.info.classes))

    @property
    def prepared_test(self) -> Part:
        """The test part as a network takes it, made anew."""
        return Part(self.preparation.prepared(self.test.x), self.targets.prepared(self.test.y))


def load_split(
    spec: DatasetSpec,
    kind: InputKind,
    structure: Mapping[str, Scalar],
    data: str | None = None,
    fold: Fold = WHOLE,
) -> Split:
    """The data set of `spec`, split by its seed (stratified for classes) and prepared, the same on every worker.

    Each part has the next whole number of samples above its fraction of all; at least one is left for training. A
    grouped split draws whole groups instead, and no group is in two parts. Vector families get images flattened. With
    folds the test part is kept apart first; `fold` is then what is validated on, whatever the fraction says.
    `structure` holds the family's structural hyperparameters, of which a few may shape the prepared data. `data` is the
    path of an upload's file. The last few splits are kept.

    Raises:
        Refused: an unknown data set, one of another kind than the family takes, or fractions that can't be split.
    """
    options = tuple((name, structure[name]) for name in FITS[kind].options if name in structure)
    return _load(spec, kind, options, data, fold)


@lru_cache(maxsize=CACHED_SPLITS)
def _load(
    spec: DatasetSpec, kind: InputKind, options: tuple[tuple[str, Scalar], ...], data: str | None, fold: Fold
) -> Split:
    origin = _origin(spec, data)
    info = origin.info
    if kind != info.kind and (kind, info.kind) != ("vector", "image"):
        fitting = ", ".join(s.info.name for s in SOURCES.values() if s.info.kind == kind)
        raise Refused(
            f"Expected a data set of {kind} samples ({fitting}) for this model family. "
            f"Received: {info.name!r}, of {info.kind} samples"
        )
    features, targets = origin.load()
    if kind == "vector" and features.dtype.names is None:
        features = features.reshape(len(features), -1)
    train, validation, test = parts_of(origin, spec, targets, fold)
    preparation = FITS[kind].fit(info, features[train], dict(options))
    scale = targets_of(info, targets, train)
    x, y = preparation.prepared(features), scale.prepared(targets)
    return Split(
        info=info,
        raw_shape=features.shape[1:],
        shape=x.shape[1:],
        preparation=preparation,
        targets=scale,
        train=Part(x[train], y[train]),
        validation=Part(x[validation], y[validation]),
        test=Part(features[test], targets[test]),
        warnings=warnings_of(info, preparation, targets, train),
    )


def _origin(spec: DatasetSpec, data: str | None) -> Source:
    if spec.id is not None:
        return uploaded(spec, data)
    return keras_source(spec.name) if spec.name in KERAS_SETS else source(spec.name)


def parts_of(
    origin: Source, spec: DatasetSpec, targets: NDArray[Any], fold: Fold = WHOLE
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The sample numbers of training, validation and test part, of a data set with these targets, [n].

    Raises:
        Refused: fractions or folds that can't be split.
    """
    parts = _parts_by_group(spec, origin, fold) if spec.grouped else _parts(origin.info, spec, targets, fold)
    train, validation, test = parts
    return train, validation, test


def _parts_by_group(spec: DatasetSpec, origin: Source, fold: Fold) -> tuple[Any, Any, Any]:
    """The sample numbers of training, validation and test part, which have no group in common.

    A part has the next whole number of groups above its fraction of all; a fold, its share of them.
    """
    if origin.groups is None:
        raise Refused(f"Expected a data set whose samples form groups, for grouped. Received: {spec.name!r}")
    groups = origin.groups()
    names = np.unique(groups)
    validation_count = math.ceil(spec.validation_fraction * len(names)) if fold.count == 1 else fold.count
    test_count = math.ceil(spec.test_fraction * len(names))
    if validation_count + test_count > len(names) - (fold.count == 1):
        raise Refused(
            f"Expected fractions and folds that leave a group for every part. Received: {len(names)} groups, "
            f"validation_fraction={spec.validation_fraction}, test_fraction={spec.test_fraction}, folds={fold.count}"
        )
    drawn = np.random.default_rng(spec.split_seed).permutation(names)
    if fold.count == 1:
        last = validation_count + test_count
        parts = drawn[last:], drawn[:validation_count], drawn[validation_count:last]
    else:
        held_out = np.arange(len(names) - test_count) % fold.count == fold.index
        parts = drawn[test_count:][~held_out], drawn[test_count:][held_out], drawn[:test_count]
    train, validation, test = (np.flatnonzero(np.isin(groups, part)) for part in parts)
    return train, validation, test


def _parts(info: DatasetInfo, spec: DatasetSpec, targets: NDArray[Any], fold: Fold) -> tuple[Any, Any, Any]:
    """The sample numbers of training, validation and test part."""
    from sklearn.model_selection import train_test_split

    validation_count = math.ceil(spec.validation_fraction * info.n) if fold.count == 1 else fold.count
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
        if fold.count > 1:
            held_out = folds_of(targets[rest], fold.count, spec.split_seed, stratified=info.task == "classification")
            return rest[held_out != fold.index], rest[held_out == fold.index], test
        train, validation = train_test_split(rest, test_size=validation_count, **seeded(rest))
    except ValueError as error:
        raise Refused(
            f"Expected fractions that leave every part some samples of every class: {error}. "
            f"Received: {info.n} samples, validation_fraction={spec.validation_fraction}, "
            f"test_fraction={spec.test_fraction}"
        ) from error
    return train, validation, test


def folds_of(targets: NDArray[Any], count: int, seed: int, *, stratified: bool) -> NDArray[np.int64]:
    """The fold of each sample, [n] in 0..count-1. Sizes differ by one at most, and so do those of each class.

    Samples are shuffled, sorted by class where `stratified`, and dealt out one by one.
    """
    shuffled = np.random.default_rng(seed).permutation(len(targets))
    if stratified:
        shuffled = shuffled[np.argsort(targets[shuffled], kind="stable")]
    folds = np.empty(len(targets), np.int64)
    folds[shuffled] = np.arange(len(targets)) % count
    return folds
