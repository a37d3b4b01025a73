"""Numbers in the narrowest type that holds all of them exactly: what is held and kept of a file is no wider than it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

WHOLE = (np.int8, np.uint8, np.int16, np.uint16)
"""Types of whole numbers that float32 holds exactly, the narrowest first."""
AT_ONCE = 2**20
"""Numbers that are looked at together, so that looking takes little memory."""


def whole_type(low: float, high: float) -> np.dtype[Any] | None:
    """The narrowest type for whole numbers from `low` to `high`; None where 16 bits hold them not."""
    for kind in WHOLE:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return None


def narrowest_type(values: NDArray[Any]) -> np.dtype[Any]:
    """The narrowest type that holds all of `values` exactly: of whole numbers up to 16 bits, else a float.

    NaN is held by floats alone. Wide integers that float64 rounds are held as float64.
    """
    flat = values.reshape(-1)
    if flat.dtype.kind == "b":
        return np.dtype(np.int8)
    if flat.dtype in WHOLE or flat.dtype == np.float16 or not len(flat):
        return flat.dtype
    low = high = float(flat[0])
    single = whole = True
    for start in range(0, len(flat), AT_ONCE):
        part = flat[start : start + AT_ONCE]
        if whole:
            low, high = min(low, float(part.min())), max(high, float(part.max()))
            fits = whole_type(low, high) is not None
            whole = fits and (part.dtype.kind in "iu" or bool((part == np.rint(part)).all()))
        if single and flat.dtype != np.float32:
            with np.errstate(over="ignore", invalid="ignore"):
                single = np.array_equal(part.astype(np.float32).astype(np.float64), part, equal_nan=True)
        if not whole and not single:
            return np.dtype(np.float64)
    found = whole_type(low, high) if whole else None
    return found or np.dtype(np.float32 if single else np.float64)


def narrowest(values: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in the narrowest type that holds all of them exactly."""
    return values.astype(narrowest_type(values), copy=False)
