"""Answers as the contract writes them: JSON text built once, with `Location` and `ETag` where they belong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastapi import Response

if TYPE_CHECKING:
    from pydantic import BaseModel

JSON = "application/json"
IDEMPOTENCY_KEY_PATTERN = r"^[\x21-\x7e]+$"


def answer(model: BaseModel, status: int = 200, *, location: str | None = None, etag: int | None = None) -> Response:
    """`model` as JSON."""
    headers = {}
    if location is not None:
        headers["Location"] = location
    if etag is not None:
        headers["ETag"] = f'"{etag}"'
    return Response(model.model_dump_json(), status, media_type=JSON, headers=headers)


def page(items: Sequence[BaseModel], next_cursor: str | None = None) -> Response:
    """A page of a list."""
    cursor = "null" if next_cursor is None else f'"{next_cursor}"'
    body = ",".join(item.model_dump_json() for item in items)
    return Response(f'{{"items":[{body}],"next_cursor":{cursor}}}', media_type=JSON)
