"""The built-in model families: what each accepts, which is all that the API needs; builders are the worker's."""

from __future__ import annotations

from app.domain.families.catalogue import (
    AUDIO_CNN,
    IMAGE_CNN,
    IMAGE_RESNET,
    KERAS_LAYERS,
    MLP,
    TEXT_CNN,
    TEXT_TRANSFORMER,
)
from app.domain.families.declaration import (
    ACTIVATIONS,
    OPTIMIZERS,
    SCHEDULES,
    Family,
    FamilyMetric,
    Hyperparameter,
    InputKind,
    Kind,
    Scalar,
    Task,
)
from app.domain.families.untrained import DIMENSIONS, EXTERNAL, FUNCTION, TEST_FUNCTIONS

_FAMILIES = (
    MLP, IMAGE_CNN, IMAGE_RESNET, TEXT_CNN, TEXT_TRANSFORMER, AUDIO_CNN, KERAS_LAYERS, FUNCTION, EXTERNAL,
)  # fmt: skip
FAMILIES: dict[str, Family] = {family.name: family for family in _FAMILIES}
"""The built-in families by name."""

__all__ = [
    "ACTIVATIONS",
    "AUDIO_CNN",
    "DIMENSIONS",
    "EXTERNAL",
    "FAMILIES",
    "FUNCTION",
    "IMAGE_CNN",
    "IMAGE_RESNET",
    "KERAS_LAYERS",
    "MLP",
    "OPTIMIZERS",
    "SCHEDULES",
    "TEST_FUNCTIONS",
    "TEXT_CNN",
    "TEXT_TRANSFORMER",
    "Family",
    "FamilyMetric",
    "Hyperparameter",
    "InputKind",
    "Kind",
    "Scalar",
    "Task",
]
