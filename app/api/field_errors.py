"""Pydantic's errors in the contract's words: paths without the noise of unions, what was expected and what came."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from app.errors import FieldError

Loc = tuple[str | int, ...]
SCALARS = {"bool_type", "int_type", "float_type", "string_type", "finite_number"}
MAX_RECEIVED = 100
"""Characters of a refused value that are repeated in the message."""
MAX_PLACES = 100
"""Places that are told of; of one more it is only told that there are more."""
ENOUGH = 5_000
"""Errors that are looked at: a place has no more than ten, one for each branch of a union."""


def field_errors(errors: Sequence[Mapping[str, Any]], body: Any, model: Any = None) -> list[FieldError]:
    """Pydantic's `errors` about `body`, with paths below it, one for each place. `model` is what was expected there.

    At most `MAX_PLACES` and one more: what is told of a body doesn't grow with all that is wrong with it.
    """
    merged: dict[Loc, list[tuple[str, str]]] = {}
    received: dict[Loc, Any] = {}
    for error in _without_union_noise(errors[:ENOUGH], body):
        loc, expected = _explain(error, body, model)
        if loc not in merged and len(merged) > MAX_PLACES:
            break
        merged.setdefault(loc, []).append((error["type"], expected))
        received[loc] = error.get("input")
    return [FieldError(loc, _message(found, received[loc])) for loc, found in merged.items()]


def _message(found: list[tuple[str, str]], received: Any) -> str:
    if len(found) > 1 and all(kind in SCALARS for kind, _ in found):
        return f"Expected a number, text, true or false. Received: {shown(received)}"
    first = found[0][1]
    if len(found) == 1 and ("Received" in first or not first.startswith("Expected")):
        return first
    alternatives = dict.fromkeys(text.removeprefix("Expected ") for _, text in found)
    return f"Expected {' or '.join(alternatives)}. Received: {shown(received)}"


def shown(value: Any) -> str:
    """A received value as JSON, shortened: no more of it is written than is shown."""
    text = ""
    try:
        for part in _ENCODER.iterencode(value):
            text += part[: MAX_RECEIVED + 1]
            if len(text) > MAX_RECEIVED:
                return text[:MAX_RECEIVED] + "…"
    except (ValueError, RecursionError):
        return type(value).__name__
    return text


_ENCODER = json.JSONEncoder(default=str)


def _explain(error: Mapping[str, Any], body: Any, model: Any) -> tuple[Loc, str]:
    kind, message, context = error["type"], str(error["msg"]), error.get("ctx") or {}
    loc = _path(error["loc"], body, ends_outside=kind in {"missing", "extra_forbidden"})
    if kind == "range":
        return (*loc, context["field"]), message
    if kind == "missing":
        return loc, "Expected this field. Received: none"
    if kind == "extra_forbidden":
        fields = _fields(model, loc[:-1], body)
        known = f"one of {', '.join(fields)}" if fields else "no field of this name"
        return loc, f"Expected {known}. Received: {shown(loc[-1])}"
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        tag = shown(context["tag"]) if "tag" in context else "none"
        return (*loc, "type"), f"Expected a type among 'float', 'int', 'categorical'. Received: {tag}"
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return loc, "Expected an object"
    message = (
        message.removeprefix("Value error, ").replace("Input should be", "Expected").replace(" after validation", "")
    )
    for noun in ("String", "List", "Dictionary"):
        message = message.replace(f"{noun} should match pattern", "Expected text that matches")
        message = message.replace(f"{noun} should have", f"Expected {'text' if noun == 'String' else 'a list'} with")
    return loc, message


def _without_union_noise(errors: Sequence[Mapping[str, Any]], body: Any) -> Iterator[Mapping[str, Any]]:
    """Of a union's branches only the one that was meant: the search where an object came, else the plain values."""
    meant: dict[Loc, bool] = {}
    for error in errors:
        for i, part in enumerate(error["loc"]):
            if isinstance(part, str) and part.startswith("tagged-union"):
                above = tuple(error["loc"][:i])
                if above not in meant:
                    meant[above] = isinstance(_at(body, above), dict)
    for error in errors:
        loc = tuple(error["loc"])
        branch = next((i for i in range(len(loc)) if loc[:i] in meant), None)
        if branch is None or str(loc[branch]).startswith("tagged-union") == meant[loc[:branch]]:
            yield error


def _step(body: Any, part: str | int) -> tuple[bool, Any]:
    """Whether `part` leads into `body`, and where to."""
    if isinstance(body, dict) and part in body:
        return True, body[part]
    if isinstance(body, list) and isinstance(part, int) and part < len(body):
        return True, body[part]
    return False, None


def _at(body: Any, loc: Loc) -> Any:
    for part in loc:
        _, body = _step(body, part)
    return body


def _path(loc: Sequence[str | int], body: Any, *, ends_outside: bool) -> Loc:
    """The parts of `loc` that lead through `body`; the names of union branches don't."""
    path: list[str | int] = []
    for i, part in enumerate(loc):
        inside, next_body = _step(body, part)
        if inside:
            body = next_body
        if inside or (ends_outside and i == len(loc) - 1):
            path.append(part)
    return tuple(path)


def _fields(model: Any, loc: Loc, body: Any) -> list[str]:
    """The names of the fields that the model at `loc` has."""
    for part in loc:
        _, body = _step(body, part)
        if isinstance(part, str) and isinstance(model, type) and issubclass(model, BaseModel):
            field = model.model_fields.get(part)
            model = field.annotation if field is not None else None
        model = _model_in(model, body)
    return sorted(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _model_in(annotation: Any, body: Any) -> Any:
    """The model within an annotation: of several the one whose `type` is the body's."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    models = [m for a in typing.get_args(annotation) if (m := _model_in(a, body)) is not None]
    if len(models) > 1 and isinstance(body, dict):
        tagged = [
            m for m in models if m.model_fields.get("type") and m.model_fields["type"].default == body.get("type")
        ]
        models = tagged or models
    return models[0] if models else None
