"""The studies that every side runs: data, network, epochs, search space. Plain data, so that every side can read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

VALIDATION_FRACTION, SPLIT_SEED = 0.2, 0
DECAY_EPOCHS = 5

SPACE: dict[str, dict[str, Any]] = {
    "activation": {"type": "categorical", "choices": ["relu", "tanh", "sigmoid"]},
    "l1": {"type": "float", "low": 1e-7, "high": 1e-3, "log": True},
    "l2": {"type": "float", "low": 1e-7, "high": 1e-3, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5},
    "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "lr_schedule": {"type": "categorical", "choices": ["constant", "exponential", "step"]},
    "decay_rate": {"type": "float", "low": 0.1, "high": 0.9, "when": {"lr_schedule": ["exponential", "step"]}},
    "batch_size": {"type": "categorical", "choices": [32, 64, 128]},
}
"""The search space of all works, as Fettle's HTTP contract writes it; a condition follows its parent."""


@dataclass(frozen=True)
class Work:
    """One study: `network` has the fixed hyperparameters by their names in Fettle, `target` an accuracy to reach.

    An accuracy is that of the validation part, 0..1, at the best epoch of a trial.
    """

    name: str
    title: str
    family: str
    dataset: str
    epochs: int
    target: float
    network: Mapping[str, Any]

    def settings(self, **sizes: Any) -> dict[str, Any]:
        """What makes two measurements of this work comparable: all of it, the space, and the `sizes` of a run."""
        return {"work": asdict(self), "space": SPACE, **sizes}


WORKS: dict[str, Work] = {
    work.name: work
    for work in (
        Work(
            "digits-mlp",
            "digits MLP 64-64-10",
            "mlp",
            "digits",
            10,
            0.975,
            {"hidden_layers": 2, "units": 64},
        ),
        Work(
            "digits-cnn",
            "digits small CNN 16-32",
            "image-cnn",
            "digits",
            10,
            0.985,
            {"conv_layers": 2, "filters": 16, "kernel_size": 3, "pooling": "max", "dense_units": 0},
        ),
        Work(
            "shapes-cnn",
            "shapes 28×28 CNN 8-16",
            "image-cnn",
            "shapes",
            9,
            0.58,
            {"conv_layers": 2, "filters": 8, "kernel_size": 3, "pooling": "max", "dense_units": 0},
        ),
        Work(
            "docstrings-transformer",
            "docstrings transformer 1×32",
            "text-transformer",
            "docstrings",
            5,
            0.85,
            {
                "max_length": 48,
                "vocabulary_size": 4000,
                "depth": 1,
                "width": 32,
                "heads": 2,
                "feed_forward": 64,
                "positions": "learned",
                "pooling": "average",
            },
        ),
        Work(
            "spoken-cnn",
            "spoken digits CNN 8-16-32",
            "audio-cnn",
            "spoken-digits",
            10,
            0.9,
            {
                "frame_length": 256,
                "frame_step": 160,
                "mel_bands": 24,
                "conv_layers": 3,
                "filters": 8,
                "kernel_size": 3,
                "pooling": "max",
                "dense_units": 0,
            },
        ),
    )
}


def suggested(suggest_float: Callable[..., float], suggest_choice: Callable[[str, list[Any]], Any]) -> dict[str, Any]:
    """One draw from the space, in its order, by Optuna's `suggest_float` and `suggest_categorical`."""
    values: dict[str, Any] = {}
    for name, spec in SPACE.items():
        if any(values[parent] not in allowed for parent, allowed in spec.get("when", {}).items()):
            continue
        if spec["type"] == "categorical":
            values[name] = suggest_choice(name, spec["choices"])
        else:
            values[name] = suggest_float(name, spec["low"], spec["high"], log=spec.get("log", False))
    return values


def definition(
    work: Work, name: str, seed: int, trials: int, parallel_trials: int | str = "auto", **changes: Any
) -> dict[str, Any]:
    """The work as a study of Fettle without pruner or early stopping: every trial trains all its epochs."""
    return {
        "name": name,
        "model": {"family": work.family},
        "dataset": {
            "name": work.dataset,
            "validation_fraction": VALIDATION_FRACTION,
            "split_seed": SPLIT_SEED,
        },
        "hyperparameters": {**SPACE, **work.network, "optimizer": "adam", "decay_epochs": DECAY_EPOCHS},
        "training": {"epochs": work.epochs, "seed": seed},
        "objectives": [{"metric": "val_accuracy", "direction": "maximize"}],
        "sampler": {"name": "tpe", "options": {"seed": seed}},
        "budget": {"trials": trials},
        "execution": {"parallel_trials": parallel_trials},
    } | changes
