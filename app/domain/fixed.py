"""Fixed hyperparameters: kept with the study alone where they are large, not in every trial and event.

A definition may fix half a megabyte of values, which all trials share. Beyond `LARGE_BYTES` a trial's row and its
events have what *varies*: the values that the definition doesn't fix.
Answers about trials put both together.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.domain.families import Scalar
from app.domain.json import dumps

LARGE_BYTES = 4_096
"""What a study's fixed values take as JSON before trials are kept without them."""


def are_large(fixed: Mapping[str, Scalar]) -> bool:
    """Whether these fixed values are kept with the study alone."""
    return len(dumps(dict(fixed)).encode()) > LARGE_BYTES


def varied(fixed: Mapping[str, Scalar], hyperparameters: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """What a trial's hyperparameters have beyond the fixed ones, or otherwise."""
    return {
        name: value for name, value in hyperparameters.items() if name not in fixed or not _same(fixed[name], value)
    }


def whole(fixed: Mapping[str, Scalar], kept: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """All of a trial's hyperparameters, of which `kept` are those that vary, or all of them."""
    return {**fixed, **kept}


def _same(one: Scalar, other: Scalar) -> bool:
    return one is other or (type(one) is type(other) and one == other)
