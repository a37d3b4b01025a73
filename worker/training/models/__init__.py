"""The networks of the built-in families, each written once in terms of blocks."""

from __future__ import annotations

from worker.training.models.audio import audio_cnn
from worker.training.models.image import image_cnn
from worker.training.models.layers import Architecture, Builder, architecture
from worker.training.models.mlp import mlp
from worker.training.models.resnet import image_resnet
from worker.training.models.text import text_cnn, text_transformer

BUILDERS: dict[str, Builder] = {
    "mlp": mlp,
    "image-cnn": image_cnn,
    "image-resnet": image_resnet,
    "text-cnn": text_cnn,
    "text-transformer": text_transformer,
    "audio-cnn": audio_cnn,
}
"""The builder of each family that trains here."""

__all__ = ["BUILDERS", "Architecture", "Builder", "architecture"]
