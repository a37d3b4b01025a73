"""Data sets as resources, and as what a definition may name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from app.api.problems import invalid_request
from app.api.schemas import Time
from app.domain.datasets import BUILT_IN, Column, ColumnType, Dataset, Origin, Role
from app.domain.families import InputKind, Task
from app.domain.study import StudyDefinition
from app.errors import FieldError, InvalidStudy, NotFound
from app.store import datasets
from app.store.log import rfc3339
from app.store.tables import StoredDataset

if TYPE_CHECKING:
    from app.api.deps import Service

SHOWN_VALUES = 50
"""Values of a category that an answer lists; `distinct` counts all."""


class ColumnInfo(BaseModel):
    """A column of a table."""

    name: str
    type: ColumnType = Field(description="As inferred, or as its owner said.")
    role: Role = Field(description="Whether models take it, predict it, or it is left out.")
    missing: int = Field(description="Empty cells.")
    distinct: int | None = Field(description="Values of a category.")
    values: list[str] = Field(description="Values of a category, the first ones.")


class DatasetInfo(BaseModel):
    """A data set that a definition may name, by `name` or `id`."""

    id: str
    name: str
    bundled: bool = Field(description="Whether it comes along with the service, or with Keras.")
    origin: Origin
    description: str
    task: Task
    input_kind: InputKind
    shape: list[int] = Field(description="Of one sample.")
    rows: int
    classes: int
    class_names: list[str] = Field(description="In the order of a model's outputs, as far as known.")
    columns: list[ColumnInfo]
    sample_rate: int = Field(description="Samples a second of recordings, else 0.")
    warnings: list[str]
    content_hash: str | None = Field(description="SHA-256 of the file as it came.")
    size_bytes: int | None = Field(
        description="Bytes that are kept of an upload, which quotas count; of a file by its URI, the file's own."
    )
    uri: str | None
    created_by: str | None = Field(description="The name of the key that brought it.")
    created_at: Time | None


class DatasetPage(BaseModel):
    """A page of data sets."""

    items: list[DatasetInfo]
    next_cursor: str | None


def dataset_view(dataset: Dataset, row: StoredDataset | None = None) -> DatasetInfo:
    """A data set; `row` is a stored one's."""
    return DatasetInfo(
        id=dataset.id or dataset.name,
        name=dataset.name,
        bundled=row is None,
        origin=dataset.origin,
        description=dataset.description,
        task=dataset.task,
        input_kind=dataset.input_kind,
        shape=list(dataset.shape),
        rows=dataset.rows,
        classes=dataset.classes,
        class_names=list(dataset.class_names),
        columns=[_column(column) for column in dataset.columns],
        sample_rate=dataset.sample_rate,
        warnings=list(dataset.warnings),
        content_hash=row.content_hash if row else None,
        size_bytes=row.size_bytes if row else None,
        uri=row.uri if row else None,
        created_by=row.created_by if row else None,
        created_at=rfc3339(row.created_at) if row else None,
    )


def _column(column: Column) -> ColumnInfo:
    return ColumnInfo(
        name=column.name,
        type=column.type,
        role=column.role,
        missing=column.missing,
        distinct=len(column.values) if column.type == "category" and column.values else None,
        values=list(column.values[:SHOWN_VALUES]),
    )


def known_datasets(api: Service, project: str, definition: StudyDefinition) -> Mapping[str, Dataset]:
    """The data sets that a definition may name: the built-in ones, and the upload that it does name."""
    spec = definition.dataset
    if spec is None or (spec.id is None and spec.name in BUILT_IN):
        return BUILT_IN
    reference = spec.id or spec.name
    with api.database.read() as session:
        row = datasets.find_dataset(session, project, reference)
    return BUILT_IN if row is None else {**BUILT_IN, reference: datasets.dataset_of(row)}


@contextmanager
def dataset_kept() -> Iterator[None]:
    """Tell of a data set that was deleted since the definition was checked, as of one that never was."""
    try:
        yield
    except NotFound as error:
        if error.code != "DATASET_NOT_FOUND":
            raise
        raise invalid_request([FieldError(("dataset", "name"), error.detail)], InvalidStudy) from None
