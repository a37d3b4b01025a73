"""Convolutions with pooling on log-mel spectrograms, then a dense head."""

from __future__ import annotations

from collections.abc import Mapping

from app.domain.families import Scalar
from worker.training.models.image import image_cnn
from worker.training.models.layers import Blocks, T


def audio_cnn(blocks: Blocks[T], x: T, hyperparameters: Mapping[str, Scalar], outputs: int) -> T:
    """The network of `image_cnn` on spectrograms of frames × bands × 1, which are augmented in training."""
    return image_cnn(blocks, blocks.augmentation(x, "spectrogram"), hyperparameters, outputs)
