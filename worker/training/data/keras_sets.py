"""The data sets of `keras.datasets`, from the files that Keras keeps below its home; nothing is ever fetched.

Keras' own loaders fetch what is missing, and delete a file that they can't fetch anew: so a file is looked for, and the
packed ones that hold pickles are compared with their known SHA-256, before Keras may touch them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.domain.datasets import BUILT_IN
from worker.trainer.trainable import Refused
from worker.training.data.sources import DatasetInfo, Samples, Source

Parts = tuple[Samples, Samples]
CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TOPICS = (
    "cocoa", "grain", "veg-oil", "earn", "acq", "wheat", "copper", "housing", "money-supply", "coffee", "sugar",
    "trade", "reserves", "ship", "cotton", "carcass", "crude", "nat-gas", "cpi", "money-fx", "interest", "gnp",
    "meal-feed", "alum", "oilseed", "gold", "tin", "strategic-metal", "livestock", "retail", "ipi", "iron-steel",
    "rubber", "heat", "jobs", "lei", "bop", "zinc", "orange", "pet-chem", "dlr", "gas", "silver", "wpi", "hog", "lead",
)  # fmt: skip
FIRST_WORD = 3
"""What Keras adds to the number of a word: lower ones are the padding, the start, and words left out."""


@dataclass(frozen=True, slots=True)
class KerasSet:
    """One of them: its files below the folder of data sets, the known hash of the first where it holds pickles, what
    loads them, and the classes' names.
    """

    files: tuple[str, ...]
    load: Callable[[Path], Samples]
    classes: tuple[str, ...] = ()
    sha256: str | None = None


def keras_folder() -> Path:
    """Where Keras keeps the files of its data sets: below KERAS_HOME, or `.keras` in the home directory."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"


def keras_source(name: str) -> Source:
    """Where the Keras data set `name` comes from.

    Raises:
        Refused: its files are not there, or others; the message says how to provide them.
    """
    known, folder = KERAS_SETS[name], keras_folder()
    how = _how(name, folder)
    for file in known.files:
        if not (folder / file).is_file():
            raise Refused(f"Expected the file {file} of the data set {name!r} in {folder}. Received none. {how}.")
    if known.sha256 is not None and _sha256(folder / known.files[0]) != known.sha256:
        raise Refused(f"Expected the file {known.files[0]} as Keras publishes it. Received another one. {how}.")
    try:
        features, targets = known.load(folder)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise Refused(
            f"Expected the files of {name!r} in {folder} as Keras reads them. Received: {error}. {how}."
        ) from error
    said = BUILT_IN[name]
    info = DatasetInfo(
        name=name,
        task=said.task,
        kind=said.input_kind,
        shape=said.shape,
        classes=known.classes,
        n=len(targets),
        maximum=255.0 if said.input_kind == "image" else 1.0,
    )
    if features.shape[1:] != said.shape:
        raise Refused(f"Expected samples of shape {said.shape} in {name!r}. Received: {features.shape[1:]}. {how}.")
    return Source(info, lambda: (features, targets))


def _how(name: str, folder: Path) -> str:
    """What an operator does to provide the files."""
    calls = f"keras.datasets.{name}.load_data()"
    if name in ("imdb", "reuters"):
        calls += f" and keras.datasets.{name}.get_word_index()"
    return (
        f"Where there is a network, run {calls} once, and copy what it left in ~/.keras/datasets to {folder} on every "
        "worker, or set KERAS_HOME to where it is"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _together(parts: Parts) -> Samples:
    """The training and the test part in one: a study splits them by its own seed."""
    (x, y), (x_test, y_test) = parts
    return np.concatenate([x, x_test]), np.concatenate([y, y_test]).reshape(-1).astype(np.int32)


def _mnist(folder: Path) -> Samples:
    with np.load(folder / "mnist.npz", allow_pickle=False) as file:
        x, y = _together(((file["x_train"], file["y_train"]), (file["x_test"], file["y_test"])))
    return x[..., np.newaxis], y


def _california_housing(folder: Path) -> Samples:
    with np.load(folder / "california_housing.npz", allow_pickle=False) as file:
        return file["x"].astype(np.float32), file["y"].astype(np.float32)


FASHION = tuple(
    f"fashion-mnist/{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("labels-idx1", "images-idx3")
)


def _fashion_mnist(folder: Path) -> Samples:
    """Labels and images in the IDX format (LeCun, The MNIST database): a header of 8 and 16 bytes, then the bytes."""
    labels, images, test_labels, test_images = (_unpacked(folder / file) for file in FASHION)
    pixels = [part[16:].reshape(-1, 28, 28, 1) for part in (images, test_images)]
    return _together(((pixels[0], labels[8:]), (pixels[1], test_labels[8:])))


def _unpacked(path: Path) -> NDArray[np.uint8]:
    with gzip.open(path, "rb") as file:
        return np.frombuffer(file.read(), np.uint8)


def _cifar10(_folder: Path) -> Samples:
    import keras

    return _together(keras.datasets.cifar10.load_data())


def _imdb(folder: Path) -> Samples:
    import keras

    return _in_words(keras.datasets.imdb.load_data(), _words(folder / "imdb_word_index.json"))


def _reuters(folder: Path) -> Samples:
    import keras

    return _in_words(keras.datasets.reuters.load_data(), _words(folder / "reuters_word_index.json"))


def _words(path: Path) -> dict[int, str]:
    return {number + FIRST_WORD: word for word, number in json.loads(path.read_text("utf-8")).items()}


def _in_words(parts: Parts, words: Mapping[int, str]) -> Samples:
    """Texts, [n] strings, of the numbers of their words."""
    numbers, labels = _together(parts)
    texts = np.empty(len(numbers), object)
    texts[:] = [in_words(sequence, words) for sequence in numbers]
    return texts, labels


def in_words(numbers: Sequence[int], words: Mapping[int, str]) -> str:
    """A text of the numbers of its words; those without a word are left out."""
    return " ".join(words[number] for number in numbers if number in words)


KERAS_SETS: dict[str, KerasSet] = {
    "mnist": KerasSet(("mnist.npz",), _mnist, tuple("0123456789")),
    "fashion_mnist": KerasSet(FASHION, _fashion_mnist, CLOTHES),
    "cifar10": KerasSet(
        ("cifar-10-batches-py_archive",),
        _cifar10,
        THINGS,
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
    "imdb": KerasSet(
        ("imdb.npz", "imdb_word_index.json"),
        _imdb,
        ("negative", "positive"),
        "69664113be75683a8fe16e3ed0ab59fda8886cb3cd7ada244f7d9544e4676b9f",
    ),
    "reuters": KerasSet(
        ("reuters.npz", "reuters_word_index.json"),
        _reuters,
        TOPICS,
        "d6586e694ee56d7a4e65172e12b3e987c03096cb01eab99753921ef915959916",
    ),
    "california_housing": KerasSet(("california_housing.npz",), _california_housing),
}
"""By name. The hashes are those that Keras 3.15 compares with."""
