"""The built-in model families: what each accepts, which is all that the API needs; builders are the worker's."""

from __future__ import annotations

from app.domain.families.audio import AUDIO_CNN
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
from app.domain.families.external import EXTERNAL
from app.domain.families.functions import DIMENSIONS, FUNCTION, TEST_FUNCTIONS
from app.domain.families.images import IMAGE_CNN, IMAGE_RESNET
from app.domain.families.layered import KERAS_LAYERS
from app.domain.families.texts import TEXT_CNN, TEXT_TRANSFORMER
from app.domain.families.vectors import MLP

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
