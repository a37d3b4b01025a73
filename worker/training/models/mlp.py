"""Dense layers on vectors."""

from __future__ import annotations

from collections.abc import Mapping

from app.domain.families import Scalar
from worker.training.models.layers import Blocks, T


def mlp(blocks: Blocks[T], x: T, hyperparameters: Mapping[str, Scalar], outputs: int) -> T:
    """`hidden_layers` of dense, batch normalisation where asked, activation and dropout; then `outputs` numbers."""
    x = blocks.flatten(x)
    for _ in range(int(hyperparameters["hidden_layers"])):
        x = blocks.dense(x, int(hyperparameters["units"]))
        if hyperparameters["batch_norm"]:
            x = blocks.batch_norm(x)
        x = blocks.dropout(blocks.activation(x))
    return blocks.dense(x, outputs)
