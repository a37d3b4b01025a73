"""Lists of Keras layers as a definition gives them: which layers there are, and what comes out of them.

No TensorFlow and no Keras: the API checks lists and their sizes before any worker builds them. The table of layers
(`table`), reading a list (`reading`), its hyperparameters (`placeholders`) and its shapes (`shapes`).
"""

from __future__ import annotations

from app.domain.layers.placeholders import declared_by
from app.domain.layers.reading import Layer, Node, expanded, read
from app.domain.layers.shapes import Impossible, Outline, kept_within, outlined
from app.domain.layers.table import LAYERS, LayerKind, Option

__all__ = [
    "LAYERS",
    "Impossible",
    "Layer",
    "LayerKind",
    "Node",
    "Option",
    "Outline",
    "declared_by",
    "expanded",
    "kept_within",
    "outlined",
    "read",
]
