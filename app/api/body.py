"""Request bodies as strict JSON: UTF-8, each key once, no NaN, and only values that every database can keep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from app.errors import BadRequest, FieldError

MAX_DEPTH = 32
"""Levels of nesting: the deepest definition needs eight."""
MAX_INTEGER = 2**63 - 1
MAX_MEMBERS = 10_000
"""Members of one object or list: the columns that an upload may name are the most."""
MAX_VALUES = 100_000
"""Values of a body, all objects and lists together."""
MAX_ERRORS = 100
"""Places that are looked for."""


def read_json(data: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        BadRequest: it is not UTF-8, not JSON, too deep, or names a key twice.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"Expected JSON in UTF-8. Received a byte that is none at position {error.start}.") from None
    if text.count(",") + text.count("[") + text.count("{") > 2 * MAX_VALUES:  # texts may have some of them too
        raise BadRequest(_too_many())
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise BadRequest(
            f"Expected JSON. Received: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise BadRequest(f"Expected JSON nested at most {MAX_DEPTH} levels deep.") from None
    except ValueError:
        raise BadRequest("Expected JSON numbers of at most 4,000 digits.") from None
    _check_shape(value)
    return value


def _too_many() -> str:
    return f"Expected at most {MAX_VALUES:,} values in a body. Received more."


def _check_shape(value: Any) -> None:
    """Refuse what is nested too deep, or has too many values: each costs more to check than to send."""
    level, depth, count = [value], 0, 0
    while level:
        if depth > MAX_DEPTH:
            raise BadRequest(f"Expected JSON nested at most {MAX_DEPTH} levels deep.")
        below: list[Any] = []
        for item in level:
            members = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
            if len(members) > MAX_MEMBERS:
                raise BadRequest(f"Expected at most {MAX_MEMBERS:,} items in a list. Received: {len(members):,}")
            below.extend(members)
        count += len(below)
        if count > MAX_VALUES:
            raise BadRequest(_too_many())
        level, depth = below, depth + 1


def unstorable(value: Any) -> list[FieldError]:
    """The places of a parsed body that no database can keep: NUL and lone surrogates in text, numbers out of range."""
    errors: list[FieldError] = []
    for loc, leaf in _leaves(value):
        if len(errors) >= MAX_ERRORS:
            break
        problem = _problem(leaf)
        if problem is not None:
            errors.append(FieldError(tuple(_printable(part) for part in loc), problem))
    return errors


def is_storable_text(text: str) -> bool:
    """Whether every database can keep `text`: no NUL, no lone surrogate."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _problem(leaf: Any) -> str | None:
    if isinstance(leaf, str) and not is_storable_text(leaf):
        return "Expected text without NUL characters and lone surrogates."
    if isinstance(leaf, float) and leaf in {float("inf"), float("-inf")}:
        return "Expected a finite number. Received: one that is too large"
    if isinstance(leaf, int) and not isinstance(leaf, bool) and abs(leaf) > MAX_INTEGER:
        return "Expected a whole number of at most 64 bits. Received: a larger one"
    return None


def _printable(part: str | int) -> str | int:
    return part if isinstance(part, int) or is_storable_text(part) else repr(part)


def _leaves(value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every key and every value that holds no others, with its path; without recursion."""
    stack: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while stack:
        loc, item = stack.pop()
        if len(loc) > MAX_DEPTH:
            yield loc, None
        elif isinstance(item, dict):
            for key, member in item.items():
                yield (*loc, key), key
                stack.append(((*loc, key), member))
        elif isinstance(item, list):
            stack.extend(((*loc, i), member) for i, member in enumerate(item))
        else:
            yield loc, item


def _refuse_constant(name: str) -> NoReturn:
    raise BadRequest(f"Expected JSON, whose numbers are finite. Received: {name}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(pairs) > MAX_MEMBERS:
        raise BadRequest(f"Expected at most {MAX_MEMBERS:,} members in an object. Received: {len(pairs):,}")
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadRequest(f"Expected each key once in an object. Received twice: {twice[:100]!r}")
    return found
