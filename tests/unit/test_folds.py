"""Folds of a data set: each sample is held out once, classes are spread evenly, sizes differ by one at most."""

from __future__ import annotations

import numpy as np
import pytest

from app.domain.instances import Instance, instance_of
from app.domain.study import DatasetSpec, TrainingSpec
from worker.training.data import Fold, load_split
from worker.training.data.split import folds_of


@pytest.mark.parametrize("count", [2, 3, 5, 7])
@pytest.mark.parametrize("stratified", [True, False])
def test_folds_are_of_one_size_and_spread_the_classes(count: int, stratified: bool) -> None:
    targets = np.repeat(np.arange(4), [40, 23, 17, 5]).astype(np.int32)
    folds = folds_of(targets, count, 3, stratified=stratified)
    sizes = np.bincount(folds, minlength=count)
    assert sizes.max() - sizes.min() <= 1
    if stratified:
        for label in range(4):
            of_class = np.bincount(folds[targets == label], minlength=count)
            assert of_class.max() - of_class.min() <= 1
    assert (folds == folds_of(targets, count, 3, stratified=stratified)).all()
    assert (folds != folds_of(targets, count, 4, stratified=stratified)).any()


def test_each_sample_is_validated_on_once_and_the_test_part_never() -> None:
    spec = DatasetSpec(name="wine", test_fraction=0.2)
    splits = [load_split(spec, "vector", {}, fold=Fold(index, 4)) for index in range(4)]
    assert len({split.test.x.tobytes() for split in splits}) == 1
    assert sum(len(split.validation) for split in splits) + len(splits[0].test) == 178
    for split in splits:
        assert len(split.train) + len(split.validation) + len(split.test) == 178
        # Standardised by the training part alone.
        assert np.abs(split.train.x.mean(0)).max() < 1e-5
        assert np.abs(split.validation.x.mean(0)).max() > 1e-3


def test_instances_are_folds_of_repeats_with_seeds_of_their_own() -> None:
    training = TrainingSpec(folds=3, repeats=2)
    found = [instance_of(training, index) for index in range(training.instances)]
    assert [(i.fold, i.repeat) for i in found] == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    assert [i.seed(7) for i in found[:3]] == [7, 7, 7]
    assert len({i.seed(7) for i in found}) == 2
    assert found[0] == Instance(0, 0, 0, 3)
