"""The data sets of Keras, from files in the layout of its cache that the tests write."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from app.domain.datasets import KERAS
from app.domain.study import DatasetSpec
from worker.trainer.trainable import Refused
from worker.training.data import load_split
from worker.training.data.keras_sets import FASHION, KERAS_SETS, in_words, keras_source


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keras' folder of data sets, empty."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "datasets" / "fashion-mnist").mkdir(parents=True)
    return tmp_path / "datasets"


def digits(rows: int) -> tuple[np.ndarray, np.ndarray]:
    labels = (np.arange(rows) % 10).astype(np.uint8)
    return np.full((rows, 28, 28), labels[:, None, None], np.uint8), labels


def test_mnist_is_both_of_its_parts_in_raw_pixels(folder: Path) -> None:
    (x, y), (x_test, y_test) = digits(100), digits(20)
    np.savez(folder / "mnist.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    split = load_split(DatasetSpec(name="mnist", test_fraction=0.25), "image", {})
    assert (split.info.n, split.info.classes, split.shape) == (120, tuple("0123456789"), (28, 28, 1))
    assert (len(split.train), len(split.validation), len(split.test)) == (66, 24, 30)
    assert split.test.x.dtype == np.uint8
    np.testing.assert_allclose(split.train.x[:, 0, 0, 0], split.train.y / 255.0, rtol=1e-6)


def test_fashion_mnist_is_read_as_its_files_are(folder: Path) -> None:
    for (x, y), files in ((digits(30), FASHION[:2]), (digits(10), FASHION[2:])):
        for file, content in zip(files, (bytes(8) + y.tobytes(), bytes(16) + x.tobytes()), strict=True):
            (folder / file).write_bytes(gzip.compress(content))
    source = keras_source("fashion_mnist")
    features, labels = source.load()
    assert features.shape == (40, 28, 28, 1)
    assert labels.tolist() == [*(i % 10 for i in range(30)), *range(10)]
    assert source.info.classes[9] == "ankle boot"


def test_california_housing_is_standardised(folder: Path) -> None:
    x = np.random.default_rng(0).normal(7.0, 3.0, (50, 8))
    np.savez(folder / "california_housing.npz", x=x, y=x.sum(1))
    split = load_split(DatasetSpec(name="california_housing"), "vector", {"normalization": "standard"})
    assert (split.info.task, split.shape) == ("regression", (8,))
    np.testing.assert_allclose(split.train.x.mean(0), 0.0, atol=1e-5)


@pytest.mark.parametrize("name", KERAS)
def test_a_file_that_is_missing_is_told_with_what_to_do(folder: Path, name: str) -> None:
    with pytest.raises(Refused) as refused:
        keras_source(name)
    for words in (KERAS_SETS[name].files[0], str(folder), f"keras.datasets.{name}.load_data()", "KERAS_HOME"):
        assert words in str(refused.value)


@pytest.mark.parametrize("name", ["cifar10", "imdb", "reuters"])
def test_a_file_that_holds_pickles_and_is_not_keras_own_is_neither_read_nor_removed(folder: Path, name: str) -> None:
    for file in KERAS_SETS[name].files:
        (folder / file).write_bytes(b"another")
    with pytest.raises(Refused, match="as Keras publishes it"):
        keras_source(name)
    assert (folder / KERAS_SETS[name].files[0]).read_bytes() == b"another"


def test_files_of_another_content_are_refused(folder: Path) -> None:
    np.savez(folder / "mnist.npz", x_train=np.zeros((4, 4)))
    with pytest.raises(Refused, match="as Keras reads them"):
        keras_source("mnist")
    np.savez(folder / "california_housing.npz", x=np.zeros((4, 3)), y=np.zeros(4))
    with pytest.raises(Refused, match="shape"):
        keras_source("california_housing")


def test_numbers_become_the_words_that_they_stand_for() -> None:
    words = {4: "good", 5: "film"}
    assert in_words([1, 4, 2, 5, 0], words) == "good film"


def test_what_is_said_of_each_is_what_its_loader_gives() -> None:
    assert KERAS_SETS.keys() == KERAS.keys()
    for name, said in KERAS.items():
        assert len(KERAS_SETS[name].classes) == said.classes
