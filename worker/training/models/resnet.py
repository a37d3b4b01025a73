"""Residual networks on images, of the kind that He et al. (2016) trained on CIFAR-10."""

from __future__ import annotations

from collections.abc import Mapping

from app.domain.families import Scalar
from worker.training.models.layers import Blocks, T


def image_resnet(blocks: Blocks[T], x: T, hyperparameters: Mapping[str, Scalar], outputs: int) -> T:
    """A convolution, `stages` of `blocks` residual blocks each, the head's pooling; then `outputs` numbers.

    The first block of each later stage strides, doubles the filters, and has a convolution of size 1 as its shortcut
    (the paper's option B). Training images are augmented.
    """
    filters = int(hyperparameters["filters"])
    x = blocks.augmentation(x, "image")
    x = _convolved(blocks, x, hyperparameters, filters)
    x = blocks.activation(x)
    for stage in range(int(hyperparameters["stages"])):
        for block in range(int(hyperparameters["blocks"])):
            if stage and not block:
                filters *= 2
                x = _residual(blocks, x, hyperparameters, filters, int(hyperparameters["stride"]))
            else:
                x = _residual(blocks, x, hyperparameters, filters)
    head = hyperparameters["head"]
    x = blocks.flatten(x) if head == "flatten" else blocks.global_pooling(x, "max" if head == "max" else "average")
    return blocks.dense(x, outputs)


def _residual(
    blocks: Blocks[T], x: T, hyperparameters: Mapping[str, Scalar], filters: int, stride: int | None = None
) -> T:
    """Two convolutions with dropout between them (Zagoruyko and Komodakis 2016), and the shortcut past both.

    With a `stride` the shortcut is a convolution of size 1, else it is `x` itself.
    """
    y = _convolved(blocks, x, hyperparameters, filters, stride or 1)
    y = blocks.dropout(blocks.activation(y))
    y = _convolved(blocks, y, hyperparameters, filters)
    shortcut = x if stride is None else blocks.convolution(x, filters, 1, stride)
    return blocks.activation(blocks.add(y, shortcut))


def _convolved(blocks: Blocks[T], x: T, hyperparameters: Mapping[str, Scalar], filters: int, stride: int = 1) -> T:
    """A convolution, with batch normalisation where asked."""
    x = blocks.convolution(x, filters, int(hyperparameters["kernel_size"]), stride)
    return blocks.batch_norm(x) if hyperparameters["batch_norm"] else x
