"""What the service knows of a data set without loading it, and those that it brings along or can name."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import TypeAdapter

from app.domain.families import InputKind, Task

ColumnType = Literal["number", "boolean", "category", "text", "time", "id"]
Role = Literal["feature", "target", "dropped"]
Origin = Literal["bundled", "keras", "upload", "reference"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: what it holds, what it is for, and how many of its cells are empty.

    `values` are the values of a category, sorted, in the order of their codes.
    """

    name: str
    type: ColumnType
    role: Role = "feature"
    missing: int = 0
    values: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Numbers that a network gets of it at most: a category one for each value and one for unknown ones."""
        if self.type == "category":
            return len(self.values) + 2
        return 2 if self.missing else 1


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set: what is predicted from what. `shape` is one sample's, `classes` is 0 for regression.

    `class_names` are in the order of a model's outputs; empty where classes are known by their index alone. Recordings
    have `sample_rate` samples a second. Where samples belong together, there are `groups` equal groups. What follows is
    known of uploads: their `id`; the rows of the rarest class; the columns of a table; the brightest value that a pixel
    may have; `warnings` about how the file was read; and the `form` that it is kept in, see `app.data.normal`.
    """

    name: str
    description: str
    task: Task
    input_kind: InputKind
    shape: tuple[int, ...]
    rows: int
    classes: int = 0
    class_names: tuple[str, ...] = ()
    sample_rate: int = 0
    groups: int = 0
    origin: Origin = "bundled"
    id: str | None = None
    rarest: int | None = None
    columns: tuple[Column, ...] = ()
    maximum: float = 1.0
    warnings: tuple[str, ...] = ()
    form: int = 1

    @property
    def inputs(self) -> tuple[Column, ...]:
        """The columns that a model takes."""
        return tuple(column for column in self.columns if column.role == "feature")

    @property
    def is_mixed(self) -> bool:
        """Whether samples are more than numbers: a model takes each column by its name."""
        return self.input_kind == "vector" and any(column.type == "category" for column in self.inputs)

    @property
    def features(self) -> int:
        """Numbers in one sample, as a network gets them at most."""
        if self.input_kind == "vector" and self.columns:
            return sum(column.width for column in self.inputs)
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:
        """Units of a model's last layer."""
        return max(1, self.classes)

    def split(self, validation_fraction: float, test_fraction: float) -> tuple[int, int, int]:
        """How many rows the training, validation and test parts get: fractions are rounded up, as the trainer does."""
        validation = math.ceil(self.rows * validation_fraction)
        test = math.ceil(self.rows * test_fraction)
        return self.rows - validation - test, validation, test

    def grouped_split(self, validation_fraction: float, test_fraction: float) -> tuple[int, int, int]:
        """The same in whole groups."""
        validation = math.ceil(self.groups * validation_fraction)
        test = math.ceil(self.groups * test_fraction)
        return self.groups - validation - test, validation, test


_SHAPES = ("disc", "ring", "square", "frame", "triangle", "wedge", "bar", "cross", "half", "crescent")


def described(dataset: Dataset) -> str:
    """What is known of a data set, as JSON text."""
    return _description.dump_json(dataset).decode()


def of_description(text: str) -> Dataset:
    """The data set that `described` wrote.

    Raises:
        ValueError: it is another text.
    """
    return _description.validate_json(text)


_description: TypeAdapter[Dataset] = TypeAdapter(Dataset)

BUNDLED: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            "digits",
            "Handwritten digits, 8×8 grey pixels.",
            "classification",
            "image",
            (8, 8, 1),
            1797,
            10,
            tuple("0123456789"),
        ),
        Dataset(
            "breast-cancer",
            "Tumours by 30 measurements of cells.",
            "classification",
            "vector",
            (30,),
            569,
            2,
            ("malignant", "benign"),
        ),
        Dataset(
            "wine",
            "Cultivars of wine by 13 chemical measurements.",
            "classification",
            "vector",
            (13,),
            178,
            3,
            ("class_0", "class_1", "class_2"),
        ),
        Dataset("diabetes", "Progression of diabetes by 10 measurements.", "regression", "vector", (10,), 442),
        Dataset(
            "shapes",
            "Ten geometric shapes, 28×28 grey pixels, drawn.",
            "classification",
            "image",
            (28, 28, 1),
            6000,
            10,
            _SHAPES,
        ),
        Dataset(
            "docstrings",
            "Docstrings of six installed libraries, whose names are masked.",
            "classification",
            "text",
            (),
            3000,
            6,
            ("keras", "numpy", "pydantic", "scikit-learn", "scipy", "sqlalchemy"),
        ),
        Dataset(
            "spoken-digits",
            "Ten words by twelve synthetic voices, 0.8 s at 8 kHz.",
            "classification",
            "audio",
            (6400,),
            960,
            10,
            ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
            sample_rate=8000,
            groups=12,
        ),
    )
}
"""By name: those that scikit-learn brings along, and those that this project does."""

KERAS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset("mnist", "Handwritten digits, 28×28 grey pixels.", "classification", "image", (28, 28, 1), 70_000, 10),
        Dataset("fashion_mnist", "Clothes, 28×28 grey pixels.", "classification", "image", (28, 28, 1), 70_000, 10),
        Dataset(
            "cifar10",
            "Animals and vehicles, 32×32 coloured pixels.",
            "classification",
            "image",
            (32, 32, 3),
            60_000,
            10,
        ),
        Dataset("imdb", "Film reviews, good or bad.", "classification", "text", (), 50_000, 2),
        Dataset("reuters", "News by topic.", "classification", "text", (), 11_228, 46),
        Dataset("california_housing", "Prices of houses by 8 measurements.", "regression", "vector", (8,), 20_640),
    )
}
"""By name: those of `keras.datasets`, both parts together. Their files are the operator's to provide."""

BUILT_IN: dict[str, Dataset] = {
    **BUNDLED,
    **{name: replace(dataset, origin="keras") for name, dataset in KERAS.items()},
}
"""All that a definition may name without an upload."""
