"""Convolutions with pooling on images, then a dense head."""

from __future__ import annotations

from collections.abc import Mapping

from app.domain.families import Scalar
from worker.training.models.layers import Blocks, T


def image_cnn(blocks: Blocks[T], x: T, hyperparameters: Mapping[str, Scalar], outputs: int) -> T:
    """`conv_layers` whose filters double from each to the next, a dense layer where asked; then `outputs` numbers.

    A convolution is followed by batch normalisation where asked, activation, pooling and dropout.
    """
    filters = int(hyperparameters["filters"])
    pooling = hyperparameters["pooling"]
    for _ in range(int(hyperparameters["conv_layers"])):
        x = blocks.convolution(x, filters, int(hyperparameters["kernel_size"]))
        if hyperparameters["batch_norm"]:
            x = blocks.batch_norm(x)
        x = blocks.activation(x)
        if pooling != "none":
            x = blocks.pooling(x, "max" if pooling == "max" else "average")
        x = blocks.dropout(x)
        filters *= 2
    x = blocks.flatten(x)
    dense_units = int(hyperparameters["dense_units"])
    if dense_units:
        x = blocks.dense(x, dense_units)
        if hyperparameters["batch_norm"]:
            x = blocks.batch_norm(x)
        x = blocks.dropout(blocks.activation(x))
    return blocks.dense(x, outputs)
