"""Answers as the contract writes them: JSON text built once, with `Location` and `ETag` where they belong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastapi import Response

if TYPE_CHECKING:
    from pydantic import BaseModel

JSON = "application/json"
IDEMPOTENCY_KEY_PATTERN = r"^[\x21-\x7e]+$"


class Answer(Response):
    """An answer as JSON; `study` is the row of the study that it is about, with which it is forgotten if it is kept."""

    media_type = JSON
    study: int | None = None


def answer(
    content: BaseModel | str,
    status: int = 200,
    *,
    location: str | None = None,
    etag: int | None = None,
    study: int | None = None,
) -> Response:
    """`content`, a model or its JSON text, as an answer. `study` is the row of the study that it is about."""
    headers = {}
    if location is not None:
        headers["Location"] = location
    if etag is not None:
        headers["ETag"] = f'"{etag}"'
    made = Answer(_text(content), status, headers=headers)
    made.study = study
    return made


def page(items: Sequence[BaseModel | str], next_cursor: str | None = None, **more: str | None) -> Response:
    """A page of a list of models or of their JSON texts; `more` are plain words beside it, by name."""
    cursor = "null" if next_cursor is None else f'"{next_cursor}"'
    beside = "".join(
        f',"{name}":{"null" if text is None else f"{chr(34)}{text}{chr(34)}"}' for name, text in more.items()
    )
    return Response(f'{{"items":[{",".join(map(_text, items))}],"next_cursor":{cursor}{beside}}}', media_type=JSON)


def _text(content: BaseModel | str) -> str:
    return content if isinstance(content, str) else content.model_dump_json()
