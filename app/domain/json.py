"""JSON whose non-finite numbers are the strings "NaN", "Infinity" and "-Infinity", as the HTTP contract writes them."""

from __future__ import annotations

import json
import math
from typing import Any

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode_number(value: float) -> float | str:
    """The number itself, or its contract spelling where it is not finite."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def decode_number(value: float | str) -> float:
    """The float that `encode_number` wrote.

    Raises:
        ValueError: a string that names no non-finite number.
    """
    if isinstance(value, str):
        if value not in NON_FINITE:
            raise ValueError(f'Expected a number or one of "NaN", "Infinity", "-Infinity". Received: {value!r}')
        return NON_FINITE[value]
    return float(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return encode_number(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"), ensure_ascii=False)
"""Made once: `json.dumps` with options makes one each time, and a trial has some thirty texts."""


def dumps(value: Any) -> str:
    """Compact JSON text; floats that are not finite become their contract strings."""
    try:
        return _ENCODER.encode(value)
    except ValueError:
        return _ENCODER.encode(_finite(value))


def loads(text: str) -> Any:
    """The value of a JSON text; contract strings stay strings (see `decode_number`)."""
    return json.loads(text)
