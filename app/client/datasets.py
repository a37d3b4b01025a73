"""The client's calls about data sets."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from app.client.models import Answer
from app.client.transport import PAGE, Transport

UPLOAD_TIMEOUT_S = 600.0
"""Seconds that an upload may take: the service reads all of the file before it answers."""


class DatasetColumn(Answer):
    """A column of a table: its inferred type, and whether it is a feature, the target, or left out."""

    name: str
    type: str
    role: str = "feature"
    missing: int = 0
    distinct: int | None = None
    values: list[str] = []


class Dataset(Answer):
    """A data set that a study may name by `name` or `id`, and what the service understood of it."""

    id: str
    name: str
    bundled: bool = True
    origin: str = "bundled"
    description: str = ""
    task: str
    input_kind: str
    shape: list[int] = []
    rows: int
    classes: int = 0
    class_names: list[str] = []
    columns: list[DatasetColumn] = []
    sample_rate: int = 0
    warnings: list[str] = []
    content_hash: str | None = None
    size_bytes: int | None = None
    uri: str | None = None
    created_at: datetime | None = None


class DatasetCalls:
    """A part of `FettleClient`."""

    _transport: Transport

    def datasets(self) -> Iterator[Dataset]:
        """All data sets: those that come along, then the project's own."""
        return self._transport.pages(Dataset, "/v1/datasets", {"limit": PAGE})

    def dataset(self, reference: str) -> Dataset:
        """The data set of an id or a name."""
        return Dataset.model_validate_json(self._transport.call("GET", _path(reference)).content)

    def upload_dataset(
        self,
        file: Path,
        *,
        name: str,
        target: str | None = None,
        columns: Mapping[str, str] | None = None,
        drop: Sequence[str] = (),
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Dataset:
        """The data set of a `.csv`, `.parquet` or `.npz` file.

        `target` is the column to predict, `columns` overrides types, `drop` leaves columns out; `options` are the
        other fields of the call, such as `task`, `x`, `y`, `input_kind`, `sample_rate`, `description`.

        Raises:
            OSError: the file can't be read.
        """
        fields = {"name": name, "target": target, "columns": json.dumps(columns) if columns else None, **options}
        data: dict[str, Any] = {key: str(value) for key, value in fields.items() if value is not None}
        if drop:
            data["drop"] = list(drop)
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        with file.open("rb") as content:
            answer = self._transport.call(
                "POST",
                "/v1/datasets",
                data=data,
                files={"file": (file.name, content)},
                headers=headers,
                timeout_s=UPLOAD_TIMEOUT_S,
            )
        return Dataset.model_validate_json(answer.content)

    def register_dataset(self, uri: str, *, name: str, idempotency_key: str | None = None, **options: Any) -> Dataset:
        """The data set of a file that lies below one of the service's roots; `options` as in `upload_dataset`."""
        body = {"uri": uri, "name": name, **{key: value for key, value in options.items() if value is not None}}
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        answer = self._transport.call("POST", "/v1/datasets", json=body, headers=headers, timeout_s=UPLOAD_TIMEOUT_S)
        return Dataset.model_validate_json(answer.content)

    def delete_dataset(self, reference: str) -> None:
        """Delete a data set of your own, by id or name, that no study uses."""
        self._transport.call("DELETE", _path(reference), repeatable=False)


def _path(reference: str) -> str:
    return f"/v1/datasets/{quote(reference, safe='')}"
