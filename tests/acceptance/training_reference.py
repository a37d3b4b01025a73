"""Plain `keras.Model.fit` of a member, as the reference that a program's numbers are compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from app.domain.families import Scalar
from app.domain.study import DatasetSpec, Objective, TrainingSpec
from worker.trainer.protocol import Member, TrainStack
from worker.training import initializers
from worker.training.loop import class_weights
from worker.training.network import load
from worker.training.network_registry import BUILT_IN_NETWORKS
from worker.training.program import Program, Variant
from worker.training.signature import filled, structural_signature
from worker.training.slots import MemberMetrics, Slots

EPOCHS = 3

WINE = DatasetSpec(name="wine")
DIABETES = DatasetSpec(name="diabetes", validation_fraction=0.6)
FEW_DIGITS = DatasetSpec(name="digits", validation_fraction=0.9)
MLP = {"hidden_layers": 2, "units": 8, "batch_size": 64}
CNN = {"conv_layers": 2, "filters": 2, "dense_units": 8, "batch_size": 64}
"""Small ones that several suites train: a last batch is a partial one."""


@dataclass
class Trained:
    """Weights after the last epoch, and the metrics of each."""

    weights: np.ndarray
    statistics: np.ndarray
    metrics: list[MemberMetrics]


def stack_of(
    family: str,
    dataset: DatasetSpec,
    members: list[Mapping[str, Scalar]],
    *,
    seeds: list[int] | None = None,
    **fields: Any,
) -> TrainStack:
    """A stack whose members' seeds are 100, 101, … where not given."""
    seeds = seeds or [100 + i for i in range(len(members))]
    return TrainStack(
        stack="stack",
        family=family,
        dataset=dataset,
        training=fields.pop("training", TrainingSpec(epochs=EPOCHS)),
        objectives=fields.pop("objectives", [Objective(metric="val_loss")]),
        members=[
            Member(member=i, number=i, hyperparameters=dict(values), seed=seed)
            for i, (values, seed) in enumerate(zip(members, seeds, strict=True))
        ],
        **fields,
    )


def program_of(request: TrainStack, members: int | None = None, *, xla: bool = False) -> Program:
    """A program for the stack's members, all in one call where `members` is not given."""
    return Program(structural_signature(request, BUILT_IN_NETWORKS), Variant(members or len(request.members), xla))


def start(slots: Slots, slot: int, request: TrainStack, member: int) -> None:
    """Start a member of the stack in a slot."""
    values = filled(slots.program.signature.declaration, request.members[member].hyperparameters)
    slots.reset(
        slot,
        values,
        seed=request.members[member].seed,
        epochs=request.training.epochs,
        class_weights=class_weights(request.training.class_weights, slots.program.split),
    )


def trained(slots: Slots, active: Sequence[int]) -> dict[int, MemberMetrics]:
    """An epoch of the slots `active`, in which nothing went wrong."""
    metrics = {}
    for slot, mine in slots.run_epoch(active).items():
        assert isinstance(mine, MemberMetrics), mine
        metrics[slot] = mine
    return metrics


def trained_by_program(request: TrainStack, program: Program | None = None) -> list[Trained]:
    """All members of a stack, trained together for its epochs."""
    width = len(request.members)
    slots = Slots(program or program_of(request))
    for slot in range(width):
        start(slots, slot, request, slot)
    epochs = [trained(slots, range(width)) for _ in range(request.training.epochs)]
    return [outcome(slots, slot, [e[slot] for e in epochs]) for slot in range(width)]


def outcome(slots: Slots, slot: int, metrics: list[MemberMetrics]) -> Trained:
    """The present weights of a slot."""
    slots.mark_best(slot)
    return Trained(*slots.best(slot), metrics)


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The contract's schedules, written once more and for one member."""

    def __init__(self, values: Mapping[str, Any], steps_per_epoch: int, epochs: int) -> None:
        self.values, self.steps_per_epoch, self.epochs = values, steps_per_epoch, epochs

    def __call__(self, step: Any) -> Any:
        v = self.values
        rate, warmup = v["decay_rate"], v["warmup_epochs"]
        step = tf.cast(step, tf.float64)
        e = step / self.steps_per_epoch - warmup
        t = e / (self.epochs - warmup)
        a = v["final_fraction"]
        factor = {
            "constant": lambda: tf.ones_like(e),
            "exponential": lambda: rate ** (e / v["decay_epochs"]),
            "step": lambda: rate ** tf.floor(e / v["decay_epochs"]),
            "inverse_time": lambda: 1 / (1 + rate * e / v["decay_epochs"]),
            "cosine": lambda: a + (1 - a) * (1 + tf.cos(math.pi * t)) / 2,
            "polynomial": lambda: a + (1 - a) * (1 - t) ** v["power"],
        }[v["lr_schedule"]]()
        rising = (step + 1) / max(warmup * self.steps_per_epoch, 1e-9)
        return tf.cast(v["learning_rate"] * tf.where(e < 0, rising, factor), tf.float32)


def keras_optimizer(values: Mapping[str, Any], steps_per_epoch: int, epochs: int) -> Any:
    """Keras' own optimizer with the member's hyperparameters."""
    common: dict[str, Any] = {
        "learning_rate": Schedule(values, steps_per_epoch, epochs),
        "weight_decay": values["weight_decay"] if values["weight_decay"] or values["optimizer"] == "adamw" else None,
        "global_clipnorm": values["global_clipnorm"] or None,
    }
    if values["optimizer"] == "sgd":
        return keras.optimizers.SGD(momentum=float(values["momentum"]), nesterov=values["nesterov"], **common)
    if values["optimizer"] == "rmsprop":
        return keras.optimizers.RMSprop(momentum=float(values["momentum"]), **common)
    return {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}[values["optimizer"]](**common)


def with_dense_gradients(optimizer: Any) -> Any:
    """The optimizer, given the gradient of an embedding as the sum over all places of a token.

    Keras' own would get a row for each place, and square these one by one for Adam and RMSprop, before they are summed.
    """
    apply = optimizer.apply

    def dense(gradients: Any, trainable_variables: Any = None) -> Any:
        return apply([tf.convert_to_tensor(gradient) for gradient in gradients], trainable_variables)

    optimizer.apply = dense
    return optimizer


def trained_by_keras(request: TrainStack, member: int, program: Program) -> Trained:
    """One member by `fit`, from the same weights, with its samples in the same order, the last partial batch too.

    `program` gives the builder and the data; nothing of its training is used.
    """
    values: dict[str, Any] = filled(program.signature.declaration, request.members[member].hyperparameters)
    seed, split, epochs = request.members[member].seed, program.split, request.training.epochs
    keras.utils.set_random_seed(seed)
    model = _model(program, values, request.training.precision)
    load(program.network, model, *program.network.fresh(seed))
    penalise(model, values)
    classify = split.info.task == "classification"
    smoothing = values["label_smoothing"]
    batch_size = values["batch_size"] * values["gradient_accumulation_steps"]
    weights = class_weights(request.training.class_weights, split)
    model.compile(
        optimizer=with_dense_gradients(keras_optimizer(values, -(-len(split.train) // batch_size), epochs)),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing) if classify else "mse",
        metrics=["accuracy" if classify else "mae"],
        jit_compile=False,
        run_eagerly=True,  # a few steps cost less than tracing them
    )

    def targets(y: np.ndarray) -> np.ndarray:
        return np.eye(split.outputs, dtype=np.float32)[y] if classify else y[:, np.newaxis]

    metrics = []
    for epoch in range(epochs):
        order = initializers.shuffled(seed, epoch, len(split.train))
        history = model.fit(
            split.train.x[order],
            targets(split.train.y[order]),
            batch_size=batch_size,
            shuffle=False,
            class_weight=dict(enumerate(weights)) or None,
            validation_batch_size=len(split.validation),
            verbose=0,
            validation_data=(split.validation.x, targets(split.validation.y)),
        ).history
        score = "accuracy" if classify else "mae"
        unit = split.targets.deviation
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        last_step = optimizer.iterations - 1
        metrics.append(
            MemberMetrics(
                loss=history["loss"][0],
                score=history[score][0] * unit,
                val_loss=history["val_loss"][0],
                val_score=history[f"val_{score}"][0] * unit,
                learning_rate=float(optimizer._learning_rate(last_step)),
            )
        )
    weights, statistics = program.network.variables(model)
    return Trained(_joined(weights), _joined(statistics), metrics)


def penalise(model: Any, values: Mapping[str, Any]) -> None:
    """Keras' own penalty on each kernel; models of blocks have it already."""
    if values["l1"] or values["l2"]:
        for variable in model.trainable_variables:
            if variable.name.endswith("kernel"):
                variable.regularizer = keras.regularizers.L1L2(values["l1"], values["l2"])


def _model(program: Program, values: Mapping[str, Any], precision: str) -> Any:
    """The network under Keras' policy of that name; the last layer in float32, as Keras' guide advises."""
    keras.config.set_dtype_policy(precision)
    try:
        features = keras.Input(program.split.shape)
        model = keras.Model(features, program.network.applied(features, values))
        model.layers[-1].dtype_policy = "float32"
    finally:
        keras.config.set_dtype_policy("float32")
    return model


def _joined(variables: list[Any]) -> np.ndarray:
    return np.concatenate([np.ravel(v.numpy()) for v in variables] or [np.zeros(0, np.float32)])
