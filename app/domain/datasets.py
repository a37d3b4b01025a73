"""What the service knows of the data sets that it brings along, without loading them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from app.domain.families import InputKind, Task


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set: what is predicted from what. `shape` is one sample's, `classes` is 0 for regression.

    Recordings have `sample_rate` samples a second. Where samples belong together, there are `groups` equal groups.
    """

    name: str
    description: str
    task: Task
    input_kind: InputKind
    shape: tuple[int, ...]
    rows: int
    classes: int = 0
    sample_rate: int = 0
    groups: int = 0

    @property
    def features(self) -> int:
        """Numbers in one sample."""
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


BUNDLED: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset("digits", "Handwritten digits, 8×8 grey pixels.", "classification", "image", (8, 8, 1), 1797, 10),
        Dataset("breast-cancer", "Tumours by 30 measurements of cells.", "classification", "vector", (30,), 569, 2),
        Dataset("wine", "Cultivars of wine by 13 chemical measurements.", "classification", "vector", (13,), 178, 3),
        Dataset("diabetes", "Progression of diabetes by 10 measurements.", "regression", "vector", (10,), 442),
        Dataset(
            "shapes",
            "Ten geometric shapes, 28×28 grey pixels, drawn.",
            "classification",
            "image",
            (28, 28, 1),
            6000,
            10,
        ),
        Dataset(
            "docstrings",
            "Docstrings of six installed libraries, whose names are masked.",
            "classification",
            "text",
            (),
            3000,
            6,
        ),
        Dataset(
            "spoken-digits",
            "Ten words by twelve synthetic voices, 0.8 s at 8 kHz.",
            "classification",
            "audio",
            (6400,),
            960,
            10,
            sample_rate=8000,
            groups=12,
        ),
    )
}
"""By name: those that scikit-learn brings along, and those that this project does."""
