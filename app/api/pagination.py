"""Opaque cursors: where a page ended, in the order that it was listed in. They work for that list alone."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from app.domain.json import decode_number, dumps
from app.errors import BadRequest

Key = tuple[Any, ...]
MAX_INTEGER = 2**63 - 1


class Cursors:
    """The cursors of one list: `listing` names it with its order and filters, `kinds` are the types of its sort key."""

    def __init__(self, listing: Sequence[object], kinds: Sequence[type]) -> None:
        self.mark = hashlib.sha256(repr(list(listing)).encode()).hexdigest()[:12]
        self.kinds = tuple(kinds)

    def encode(self, key: Key) -> str:
        """The cursor of a page whose last item has this sort key."""
        text = dumps([self.mark, *key])
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def decode(self, cursor: str | None) -> Key | None:
        """The sort key that a cursor holds.

        Raises:
            BadRequest: it is none of this list's.
        """
        if cursor is None:
            return None
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            parts = json.loads(raw.decode())
            if not isinstance(parts, list) or len(parts) != len(self.kinds) + 1 or parts[0] != self.mark:
                raise ValueError("another list's")
            return tuple(_checked(part, kind) for part, kind in zip(parts[1:], self.kinds, strict=True))
        except (ValueError, RecursionError, OverflowError, binascii.Error):
            raise BadRequest(
                "Expected a cursor that this list gave, with the same sort and filters. Received another.",
                code="BAD_CURSOR",
            ) from None


def _checked(part: Any, kind: type) -> Any:
    if kind is float:
        if part is None:
            return None
        if isinstance(part, bool) or not isinstance(part, int | float | str):
            raise ValueError("not a number")
        return decode_number(part)
    if type(part) is not kind:
        raise ValueError("another type")
    if isinstance(part, int) and not 0 <= part <= MAX_INTEGER:
        raise ValueError("out of range")
    if isinstance(part, str) and "\0" in part:
        raise ValueError("NUL")
    if isinstance(part, str):
        part.encode()  # a lone surrogate is a UnicodeEncodeError, which is a ValueError
    return part
