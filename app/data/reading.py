"""How a file is to be read: what its owner says of it, which is part of what makes it one data set and not another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from app.domain.datasets import ColumnType
from app.errors import FettleError, FieldError, InvalidDataset, Unready

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


@contextmanager
def parsing(what: str, loc: Loc = ("file",)) -> Iterator[None]:
    """Refuse a file over which a library stumbles within the block: it expected `what`.

    Bytes of anybody's making come to parsers here, and what those raise over them is not bounded by what they say:
    names that are no text, indices into nothing, numbers beyond 64 bits. Only calls of such libraries belong within.

    Raises:
        InvalidDataset: the library raised anything but that it lacks memory.
    """
    try:
        yield
    except (FettleError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - see above
        refuse(loc, f"Expected {what}. Received: {_words(error)}")


def _words(error: Exception) -> str:
    """What an error says, in a line that can be sent: parsers quote the bytes that they stumble over."""
    said = "".join(c if c.isprintable() else " " for c in str(error)[:3_000])
    return " ".join(said.split())[:300] or type(error).__name__


def no_room(error: OSError) -> Unready:
    """What is said where this machine can't hold a file for as long as it is read."""
    words = error.strerror or type(error).__name__
    return Unready(f"Expected room for a file on the service's machine. Received: {words}. Try again later.")


def format_of(name: str) -> FileFormat | None:
    """The format that a file's name tells by its ending; None where it tells none."""
    ending = name.rpartition(".")[2].lower()
    known: dict[str, FileFormat] = {"csv": "csv", "tsv": "csv", "parquet": "parquet", "pq": "parquet", "npz": "npz"}
    return known.get(ending)
