"""What a package with a model family of its own imports: no TensorFlow, no service. See `docs/own-models.md`."""

from __future__ import annotations

from app.domain.families.declaration import (
    ACTIVATIONS,
    Hyperparameter,
    choice,
    flag,
    float_parameter,
    int_parameter,
)
from app.domain.families.plugin import FamilyPlugin, InvalidPlugin, Metric

__all__ = [
    "ACTIVATIONS",
    "FamilyPlugin",
    "Hyperparameter",
    "InvalidPlugin",
    "Metric",
    "choice",
    "flag",
    "float_parameter",
    "int_parameter",
]
