"""When two trials of a study are the same: they were sampled alike."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from app.domain.families import Scalar
from app.domain.json import dumps


def identity(sampled: Mapping[str, Scalar]) -> str:
    """A hash of a trial's searched hyperparameters: 32 hexadecimal digits of SHA-256 of their canonical JSON.

    Canonical: sorted by name, without those whose conditions don't hold, whole numbers without a fraction (32.0 is 32,
    true is not 1). The fixed ones need not be hashed: they are the same in all trials of a study.
    """
    text = dumps({name: _canonical(sampled[name]) for name in sorted(sampled)})
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _canonical(value: Scalar) -> Scalar:
    return int(value) if isinstance(value, float) and value.is_integer() else value
