"""Rules about data: samples that suit the family, names and splits of data sets, the frames of a spectrogram."""

from __future__ import annotations

from collections.abc import Iterator

from app.domain.datasets import Dataset
from app.domain.families import InputKind
from app.domain.size import largest
from app.domain.study import DatasetSpec, StudyDefinition
from app.errors import FieldError

SAMPLES_OF: dict[InputKind, str] = {
    "vector": "vectors",
    "image": "images",
    "text": "texts",
    "audio": "recordings",
    "none": "nothing",
}
"""What the samples of a kind are called."""


def takes(family: InputKind, dataset: InputKind) -> bool:
    """Whether a family of one kind of input takes a data set of another: images may be flattened to vectors."""
    return family == dataset or (family, dataset) == ("vector", "image")


def grouping_problems(spec: DatasetSpec, dataset: Dataset) -> Iterator[FieldError]:
    """What is wrong with a grouped split."""
    if dataset.groups == 0:
        yield FieldError(
            ("dataset", "grouped"),
            f"Expected false: the samples of {spec.name!r} form no groups that could be kept together.",
        )
    elif min(dataset.grouped_split(spec.validation_fraction, spec.test_fraction)[:2]) < 1:
        yield FieldError(
            ("dataset", "validation_fraction"),
            f"Expected fractions that leave at least one of the {dataset.groups} groups of {spec.name!r} for training. "
            f"Received: validation_fraction={spec.validation_fraction:g}, test_fraction={spec.test_fraction:g}",
        )


def frame_problems(definition: StudyDefinition, dataset: Dataset) -> Iterator[FieldError]:
    """Frames of a spectrogram that are longer than a recording."""
    value = definition.hyperparameters.get("frame_length")
    if dataset.input_kind != "audio" or value is None:
        return
    longest = int(largest(value))
    if longest > dataset.features:
        yield FieldError(
            ("hyperparameters", "frame_length"),
            f"Expected at most {dataset.features}, the samples of a recording of {dataset.name!r}. Received: {longest}",
        )


def upload_problems(spec: DatasetSpec, dataset: Dataset) -> Iterator[FieldError]:
    """What is wrong with how a study names an upload, or splits it."""
    if spec.id is not None and spec.name not in (dataset.name, dataset.id):
        yield FieldError(
            ("dataset", "id"), f"Expected the id of {spec.name!r}. Received that of {dataset.name!r}: {spec.id!r}"
        )
    if spec.test_fraction > 0 and dataset.rarest is not None and dataset.rarest < 3:
        yield FieldError(
            ("dataset", "test_fraction"),
            f"Expected 0, or a data set with at least 3 rows of every class, one for each part. "
            f"Received one with a class of {dataset.rarest}",
        )


def pinned(definition: StudyDefinition, dataset: Dataset | None) -> StudyDefinition:
    """`definition` with the name and the id of its upload: another one of the same name later is not meant."""
    if dataset is None or dataset.id is None or definition.dataset is None:
        return definition
    spec = definition.dataset.model_copy(update={"name": dataset.name, "id": dataset.id})
    return definition.model_copy(update={"dataset": spec})
