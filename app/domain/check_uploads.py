"""What a study must heed of a data set that a user brought."""

from __future__ import annotations

from collections.abc import Iterator

from app.domain.datasets import Dataset
from app.domain.study import DatasetSpec, StudyDefinition
from app.errors import FieldError


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
