"""How a file is to be read: what its owner says of it, which is part of what makes it one data set and not another."""

from __future__ import annotations

from typing import Annotated, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from app.domain.datasets import ColumnType
from app.errors import FieldError, InvalidDataset

FileFormat = Literal["csv", "parquet", "npz"]
Loc = tuple[str | int, ...]
ColumnName = Annotated[str, Field(min_length=1, max_length=255)]


class ReadingOptions(BaseModel):
    """What an owner says of a file. What is left out is inferred, and the data set says what came of it.

    `target` is the column that is predicted; `x` and `y` are the arrays of a `.npz`. `columns` overrides the types of
    columns, `drop` leaves some out. `input_kind` says what arrays hold, `sample_rate` is in samples a second.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: ColumnName | None = None
    task: Literal["auto", "classification", "regression"] = "auto"
    columns: Annotated[dict[ColumnName, ColumnType], Field(max_length=10_000)] = {}
    drop: Annotated[list[ColumnName], Field(max_length=10_000)] = []
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    x: ColumnName | None = None
    y: ColumnName | None = None
    input_kind: Literal["auto", "vector", "image", "audio", "text"] = "auto"
    sample_rate: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class Reading(ReadingOptions):
    """How a file is read: its format, and what its owner says."""

    format: FileFormat


def refuse(loc: Loc, message: str) -> NoReturn:
    """Refuse a data set for what is at `loc`: a field of the request, and what is below it.

    Raises:
        InvalidDataset: always.
    """
    raise InvalidDataset(f"{'.'.join(map(str, loc))}: {message}", errors=[FieldError(loc, message)])


def format_of(name: str) -> FileFormat | None:
    """The format that a file's name tells by its ending; None where it tells none."""
    ending = name.rpartition(".")[2].lower()
    known: dict[str, FileFormat] = {"csv": "csv", "tsv": "csv", "parquet": "parquet", "pq": "parquet", "npz": "npz"}
    return known.get(ending)
