"""Studies of texts that can't be run."""

from __future__ import annotations

from typing import Any

from tests.integration.bad_input import DefinitionCase
from tests.integration.bad_input.studies import among, mlp, whole


def texts(family: str = "text-transformer", **hyperparameters: Any) -> dict[str, Any]:
    """A study of docstrings."""
    return mlp(model={"family": family}, dataset={"name": "docstrings"}, hyperparameters=hyperparameters)


DEFINITIONS: list[DefinitionCase] = [
    ("images for a text family", texts() | {"dataset": {"name": "digits"}}, ["dataset", "name"]),
    ("vectors for a text CNN", texts("text-cnn") | {"dataset": {"name": "wine"}}, ["dataset", "name"]),
    ("texts for vectors", mlp(dataset={"name": "docstrings"}), ["dataset", "name"]),
    ("heads that never divide the width", texts(width=32, heads=3), ["hyperparameters", "heads"]),
    ("heads that divide no width", texts(width=among(16, 32), heads=among(3, 5)), ["hyperparameters", "heads"]),
    ("more heads than width", texts(width=whole(2, 3), heads=whole(4, 8)), ["hyperparameters", "heads"]),
    ("no room for a token", texts("text-cnn", vocabulary_size=2), ["hyperparameters", "vocabulary_size"]),
    ("no length", texts(max_length=0), ["hyperparameters", "max_length"]),
    ("unknown tokens", texts(tokens="syllables"), ["hyperparameters", "tokens"]),
    ("unknown positions", texts(positions="rotary"), ["hyperparameters", "positions"]),
    ("a text pooled by its sum", texts("text-cnn", pooling="sum"), ["hyperparameters", "pooling"]),
    ("heads for a CNN", texts("text-cnn", heads=2), ["hyperparameters", "heads"]),
    ("a table too large", texts(vocabulary_size=1_000_000, width=4_096), ["hyperparameters"]),
]
