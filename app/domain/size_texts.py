"""How many weights the largest network on texts has."""

from __future__ import annotations

from collections.abc import Mapping


def text_cnn_weights(high: Mapping[str, int], outputs: int) -> int:
    """Those of `text-cnn`, without batch normalisation's, by the largest value of each hyperparameter."""
    channels = high["embedding_dim"]
    total = high["vocabulary_size"] * channels
    for _ in range(high["conv_layers"]):
        total += (high["kernel_size"] * channels + 1) * high["filters"]
        channels = high["filters"]
    if high["dense_units"]:
        total += (channels + 1) * high["dense_units"]
        channels = high["dense_units"]
    return total + (channels + 1) * outputs


def text_transformer_weights(high: Mapping[str, int], outputs: int, *, learned_positions: bool) -> int:
    """Those of `text-transformer`, by the largest value of each hyperparameter."""
    width, inner = high["width"], high["feed_forward"]
    table = (high["vocabulary_size"] + (high["max_length"] if learned_positions else 0)) * width
    attention = 4 * (width + 1) * width
    dense = (width + 1) * inner + (inner + 1) * width
    norms = 2 * width
    return table + high["depth"] * (attention + dense + 2 * norms) + norms + (width + 1) * outputs
