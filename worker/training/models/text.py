"""Networks on texts: convolutions along the tokens, and a transformer's encoder."""

from __future__ import annotations

from collections.abc import Mapping

from app.domain.families import Scalar
from worker.training.models.layers import Blocks, Pooling, T
from worker.training.models.sequences import Positions

POOLINGS: dict[Scalar, Pooling] = {"max": "max", "average": "average"}
POSITIONS: dict[Scalar, Positions] = {"learned": "learned", "sinusoidal": "sinusoidal", "none": "none"}


def text_cnn(blocks: Blocks[T], x: T, hyperparameters: Mapping[str, Scalar], outputs: int) -> T:
    """Embedded tokens, `conv_layers`, the maximum or average over all places, a dense layer where asked (Kim 2014).

    A convolution is followed by batch normalisation where asked, activation and dropout. Padding stays zero, so that
    what a text gives does not depend on how much of it there is.
    """
    mask = blocks.padding_mask(x)
    x = blocks.embedding(x, int(hyperparameters["vocabulary_size"]), int(hyperparameters["embedding_dim"]))
    x = blocks.masked(blocks.dropout(x), mask)
    for _ in range(int(hyperparameters["conv_layers"])):
        x = blocks.convolution_1d(x, int(hyperparameters["filters"]), int(hyperparameters["kernel_size"]))
        if hyperparameters["batch_norm"]:
            x = blocks.batch_norm(x)
        x = blocks.masked(blocks.dropout(blocks.activation(x)), mask)
    x = blocks.global_pooling(x, POOLINGS[hyperparameters["pooling"]], mask)
    dense_units = int(hyperparameters["dense_units"])
    if dense_units:
        x = blocks.dense(x, dense_units)
        if hyperparameters["batch_norm"]:
            x = blocks.batch_norm(x)
        x = blocks.dropout(blocks.activation(x))
    return blocks.dense(x, outputs)


def text_transformer(blocks: Blocks[T], x: T, hyperparameters: Mapping[str, Scalar], outputs: int) -> T:
    """The encoder of Vaswani et al. 2017 with normalisation before each part (Xiong et al. 2020), then pooling.

    Each of `depth` layers adds attention and then two dense layers to its input, each after dropout.
    """
    width = int(hyperparameters["width"])
    mask = blocks.padding_mask(x)
    x = blocks.embedding(x, int(hyperparameters["vocabulary_size"]), width)
    x = blocks.dropout(blocks.positions(x, POSITIONS[hyperparameters["positions"]]))
    for _ in range(int(hyperparameters["depth"])):
        seen = blocks.attention(blocks.layer_norm(x), int(hyperparameters["heads"]), mask)
        x = blocks.add(x, blocks.dropout(seen))
        inner = blocks.activation(blocks.dense(blocks.layer_norm(x), int(hyperparameters["feed_forward"])))
        x = blocks.add(x, blocks.dropout(blocks.dense(inner, width)))
    x = blocks.global_pooling(blocks.layer_norm(x), POOLINGS[hyperparameters["pooling"]], mask)
    return blocks.dense(x, outputs)
