"""The family of models that a definition lists layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from app.domain.families.declaration import Family, Hyperparameter, InputKind, Scalar
from app.domain.families.shared import OPTIMIZATION, PENALTIES

KERAS_LAYERS = Family(
    name="keras-layers",
    version="1",
    description="A list of Keras layers, with hyperparameters in place of their options; the output layer is added.",
    hyperparameters=(*PENALTIES, *OPTIMIZATION),
    stack_members=16,
    first_members=8,
    from_layers=True,
)
"""What all lists have in common: each declares more hyperparameters by using them."""
RESERVED = tuple(h.name for h in KERAS_LAYERS.hyperparameters)
"""Names of hyperparameters that layers can't have: they say how weights are optimised."""


def with_layers(
    layers: Sequence[Any], input_kind: InputKind | None, fallbacks: Mapping[str, Scalar] | None = None
) -> Family:
    """The family of the models that `layers` may give: the hyperparameters that they use come first.

    What is wrong with the list is left out: `check_layers` tells it. `fallbacks` are the defaults of hyperparameters
    that not every trial draws.
    """
    from app.domain.layers import declared_by, read

    declared, _ = declared_by(read(layers).nodes, fallbacks)
    own: tuple[Hyperparameter, ...] = tuple(h for name, h in declared.items() if name not in RESERVED)
    return replace(
        KERAS_LAYERS, hyperparameters=(*own, *KERAS_LAYERS.hyperparameters), input_kind=input_kind or "vector"
    )


@lru_cache(maxsize=256)
def with_layers_of_text(layers: str, input_kind: InputKind | None) -> Family:
    """The same by the layers' JSON text, without fallbacks: what a trainer knows, whose trials have every value."""
    import json

    return with_layers(json.loads(layers), input_kind)
