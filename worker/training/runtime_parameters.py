"""What a program reads at run time: the hyperparameters that are not structural, a row a member.

A block of members keeps one [K, columns] float64 matrix; in the traced function each column becomes a [K] tensor. So a
member's learning rate, penalties, dropout or activation never need another compiled program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from app.domain.families import SCHEDULES, Scalar
from worker.training.schedules import ScheduleParameters

AUGMENTS = ("flip", "shift", "noise", "cutout", "time_mask", "band_mask")
"""What follows `augment_` in the hyperparameters of families that augment their training samples."""

COLUMNS = (
    "learning_rate", "schedule", "decay_rate", "decay_epochs", "final_fraction", "power", "warmup_epochs", "epochs",
    "momentum", "weight_decay", "global_clipnorm", "l1", "l2", "dropout", "label_smoothing", "activation",
    *(f"augment_{name}" for name in AUGMENTS), "seed",
)  # fmt: skip
"""The columns of a block's runtime matrix."""


def row_of(
    hyperparameters: Mapping[str, Scalar],
    activations: Sequence[str],
    *,
    seed: int,
    epochs: int,
    class_weights: Sequence[float] = (),
    own: Sequence[str] = (),
) -> NDArray[np.float64]:
    """A member's row, [columns] float64, from all of its family's hyperparameters.

    `activations` are the candidates of its program, `epochs` is the length of its learning-rate schedule. Weights of
    classes, where the program takes any, stand behind the columns, and behind them `own`, the runtime hyperparameters
    that its network alone reads. What a family doesn't have is 0.
    """
    values: dict[str, Any] = {**dict.fromkeys(COLUMNS, 0.0), **hyperparameters, "epochs": epochs, "seed": seed}
    values["schedule"] = SCHEDULES.index(str(values["lr_schedule"]))
    values["activation"] = activations.index(str(values["activation"])) if activations else 0
    shared, mine = (float(values[name]) for name in COLUMNS), (float(hyperparameters[name]) for name in own)
    return np.array([*shared, *class_weights, *mine])


def columns_of(runtime: Any) -> dict[str, Any]:
    """The columns of a [K, columns] matrix that all networks have, by name, each [K] float64."""
    return dict(zip(COLUMNS, tf.unstack(runtime[:, : len(COLUMNS)], axis=1), strict=True))


def class_weights_of(runtime: Any, own: Sequence[str] = ()) -> Any:
    """The weights of classes behind the columns of a runtime matrix: [K, classes] float32, or None without any."""
    end = runtime.shape[1] - len(own)
    return tf.cast(runtime[:, len(COLUMNS) : end], tf.float32) if end > len(COLUMNS) else None


def own_columns_of(runtime: Any, names: Sequence[str]) -> dict[str, Any]:
    """The columns of a [K, columns] matrix that one network alone reads, by name, each [K] float32."""
    start = runtime.shape[1] - len(names)
    return {name: tf.cast(runtime[:, start + i], tf.float32) for i, name in enumerate(names)}


@dataclass(frozen=True, slots=True)
class Knobs:
    """Runtime hyperparameters of K members, [K] float32; whether anybody uses a costly one, scalars.

    `augments` are those of `AUGMENTS`: `places` says whether anybody uses one of them other than noise.
    `own` are those that one network alone reads, by name.
    """

    momentum: Any
    weight_decay: Any
    clip: Any
    l1: Any
    l2: Any
    dropout: Any
    label_smoothing: Any
    activation: Any
    seed: Any
    augments: Mapping[str, Any]
    clips: Any
    penalises: Any
    drops: Any
    places: Any
    noises: Any
    own: Mapping[str, Any] = field(default_factory=dict)

    def of_members(self) -> dict[str, Any]:
        """What is each member's, [K] each, by name."""
        whole = {"clips", "penalises", "drops", "places", "noises"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in whole}

    def with_members(self, values: Mapping[str, Any]) -> Knobs:
        """The knobs with what is each member's taken from `values`."""
        return replace(self, **values)


def knobs_of(column: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> Knobs:
    """The knobs of K members from their columns, each [K] float64 by its name; `own` are a network's, [K] float32."""
    names = ("momentum", "weight_decay", "l1", "l2", "dropout", "label_smoothing")
    floats = {name: tf.cast(column[name], tf.float32) for name in names}
    clip = tf.cast(column["global_clipnorm"], tf.float32)
    augments = {name: tf.cast(column[f"augment_{name}"], tf.float32) for name in AUGMENTS}
    return Knobs(
        **floats,
        augments=augments,
        clip=clip,
        activation=tf.cast(column["activation"], tf.int32),
        seed=tf.cast(column["seed"], tf.int64),
        clips=tf.reduce_any(clip > 0),
        penalises=tf.reduce_any(floats["l1"] + floats["l2"] > 0),
        drops=tf.reduce_any(floats["dropout"] > 0),
        places=tf.reduce_any(tf.add_n([v for name, v in augments.items() if name != "noise"]) > 0),
        noises=tf.reduce_any(augments["noise"] > 0),
        own=own or {},
    )


def schedule_of(column: Mapping[str, Any]) -> ScheduleParameters:
    """The learning-rate schedules of K members from their columns."""
    names = ("learning_rate", "decay_rate", "decay_epochs", "final_fraction", "power", "warmup_epochs", "epochs")
    return ScheduleParameters(tf.cast(column["schedule"], tf.int32), *(column[name] for name in names))
