"""A program's weights, losses and metrics are those of plain `keras.Model.fit`, alone and in a stack."""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

from tests.acceptance.training_reference import (
    CNN,
    DIABETES,
    EPOCHS,
    FEW_DIGITS,
    MLP,
    WINE,
    Trained,
    outcome,
    program_of,
    stack_of,
    start,
    trained,
    trained_by_keras,
    trained_by_program,
)
from tests.support.effort import with_smoke
from worker.training.slots import Slots

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


# A case: family, data set, what all members share, and what each of three has of its own. Between them the cases have
# every optimizer with momentum, Nesterov, decay and clipping, every regulariser, schedule and activation, batch
# normalisation and label smoothing. No batch size divides the samples: the last batch is a partial one.
CASES = {
    "sgd-nesterov-clipped": (
        "mlp",
        WINE,
        {**MLP, "optimizer": "sgd", "nesterov": True},
        [
            {"momentum": 0.9, "learning_rate": 1e-3, "activation": "tanh", "global_clipnorm": 0.5},
            {"momentum": 0.5, "learning_rate": 5e-4, "activation": "relu", "lr_schedule": "exponential"},
            {"momentum": 0.0, "learning_rate": 1e-3, "activation": "elu", "global_clipnorm": 0.1, "l2": 0.01},
        ],
    ),
    "sgd-decayed": (
        "mlp",
        WINE,
        {**MLP, "optimizer": "sgd", "hidden_layers": 1},
        [
            {"momentum": 0.8, "weight_decay": 0.1, "lr_schedule": "step", "decay_epochs": 1.0},
            {"momentum": 0.0, "weight_decay": 0.0, "l1": 0.01},
            {"momentum": 0.9, "weight_decay": 0.5, "label_smoothing": 0.2},
        ],
    ),
    "adam-smoothed": (
        "mlp",
        WINE,
        {**MLP, "optimizer": "adam"},
        [
            {"label_smoothing": 0.1, "lr_schedule": "inverse_time", "activation": "gelu"},
            {"learning_rate": 3e-4, "l1": 1e-3, "l2": 1e-3, "activation": "swish", "weight_decay": 0.1},
            {"learning_rate": 1e-3, "global_clipnorm": 0.2, "activation": "sigmoid", "decay_rate": 0.3},
        ],
    ),
    "adamw-warmed-up": (
        "mlp",
        WINE,
        {**MLP, "optimizer": "adamw"},
        [
            {"weight_decay": 0.1, "lr_schedule": "cosine", "warmup_epochs": 1, "final_fraction": 0.1},
            {"weight_decay": 0.01, "lr_schedule": "polynomial", "power": 2.0, "warmup_epochs": 0.5},
            {"weight_decay": 0.0, "lr_schedule": "constant", "l2": 0.01},
        ],
    ),
    "rmsprop-regularised": (
        "mlp",
        WINE,
        {**MLP, "optimizer": "rmsprop"},
        [
            {"momentum": 0.9, "learning_rate": 1e-4, "lr_schedule": "polynomial", "l1": 1e-3, "l2": 1e-2},
            {"momentum": 0.0, "learning_rate": 1e-3, "lr_schedule": "cosine", "global_clipnorm": 1.0},
            {"momentum": 0.5, "learning_rate": 1e-4, "weight_decay": 0.2},
        ],
    ),
    "mlp-batch-norm": (
        "mlp",
        WINE,
        {**MLP, "optimizer": "sgd", "batch_norm": True},
        [
            {"momentum": 0.9, "activation": "relu", "lr_schedule": "exponential", "decay_rate": 0.9},
            {"momentum": 0.0, "activation": "tanh", "l2": 1e-3},
            {"momentum": 0.9, "learning_rate": 3e-4, "activation": "relu", "global_clipnorm": 0.5},
        ],
    ),
    "regression": (
        "mlp",
        DIABETES,
        {**MLP, "optimizer": "adam"},
        [{"l2": 1e-3}, {"activation": "tanh", "learning_rate": 3e-4}, {"lr_schedule": "cosine"}],
    ),
    "cnn-max": (
        "image-cnn",
        FEW_DIGITS,
        {**CNN, "optimizer": "adam", "pooling": "max"},
        [{"l2": 1e-3}, {"activation": "tanh", "learning_rate": 3e-4}, {"l1": 1e-4, "lr_schedule": "step"}],
    ),
    "cnn-average-batch-norm": (
        "image-cnn",
        FEW_DIGITS,
        {**CNN, "optimizer": "sgd", "pooling": "average", "batch_norm": True, "kernel_size": 2},
        [{"momentum": 0.9}, {"activation": "sigmoid"}, {"learning_rate": 3e-4, "label_smoothing": 0.1}],
    ),
}

# Weights: 1e-4 relative, as promised. Near zero that means nothing: float32 sums in another order differ by about 1e-7
# of the largest term, and weights are of the order of 0.1 to 1.
RTOL, ATOL = 1e-4, 2e-6


def assert_same(actual: Trained, expected: Trained) -> None:
    np.testing.assert_allclose(actual.weights, expected.weights, rtol=RTOL, atol=ATOL)
    np.testing.assert_allclose(actual.statistics, expected.statistics, rtol=RTOL, atol=ATOL)
    for mine, theirs in zip(actual.metrics, expected.metrics, strict=True):
        np.testing.assert_allclose(dataclasses.astuple(mine), dataclasses.astuple(theirs), rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("name", with_smoke(CASES, "sgd-nesterov-clipped", "adam-smoothed", "cnn-max", "regression"))
def test_a_program_trains_as_keras_fit_does_alone_and_in_a_stack(name: str) -> None:
    family, dataset, shared, own = CASES[name]
    request = stack_of(family, dataset, [{**shared, **values} for values in own])
    program = program_of(request)
    references = [trained_by_keras(request, member, program) for member in range(len(own))]
    for actual, expected in zip(trained_by_program(request, program), references, strict=True):
        assert_same(actual, expected)

    alone = stack_of(family, dataset, [{**shared, **own[0]}], choices={"activation": ["relu", "tanh"]})
    assert_same(trained_by_program(alone)[0], references[0])


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("name", ["adam-smoothed", "mlp-batch-norm", "cnn-max", "cnn-average-batch-norm"])
def test_xla_trains_as_keras_fit_does_whatever_the_members_of_a_call(name: str, members: int) -> None:
    family, dataset, shared, own = CASES[name]
    request = stack_of(family, dataset, [{**shared, **values} for values in own])
    program = program_of(request, members, xla=True)
    for member, actual in enumerate(trained_by_program(request, program)):
        assert_same(actual, trained_by_keras(request, member, program))


def test_a_stack_as_wide_as_a_layer_mixes_no_axes() -> None:
    shared = {**MLP, "units": 8, "optimizer": "adam"}
    rates = [1e-3, 9e-4, 8e-4, 7e-4, 6e-4, 5e-4, 4e-4, 3e-4]
    request = stack_of("mlp", WINE, [{**shared, "learning_rate": rate, "global_clipnorm": 0.5} for rate in rates])
    program = program_of(request)
    together = trained_by_program(request, program)
    for member in (0, 7):
        assert_same(together[member], trained_by_keras(request, member, program))


@pytest.mark.parametrize("executor", [None, ThreadPoolExecutor(2)], ids=["in turn", "side by side"])
def test_a_slot_refilled_in_mid_program_trains_as_alone_and_leaves_the_others_as_they_were(
    executor: ThreadPoolExecutor | None,
) -> None:
    shared = {**MLP, "optimizer": "adam", "batch_norm": True}
    request = stack_of("mlp", WINE, [{**shared, "learning_rate": r} for r in (1e-3, 5e-4, 2e-4, 8e-4)])
    program = program_of(request, 2)
    undisturbed = trained_by_program(request.model_copy(update={"members": request.members[:3]}), program)

    slots = Slots(program, executor)
    for slot in range(3):
        start(slots, slot, request, slot)
    first = trained(slots, [0, 1, 2])
    start(slots, 1, request, 3)
    later = [trained(slots, [0, 1, 2]) for _ in range(EPOCHS)]
    refilled = outcome(slots, 1, [e[1] for e in later])
    newcomer = stack_of("mlp", WINE, [request.members[3].hyperparameters] * 3, seeds=[1, 103, 2])
    assert_same(refilled, trained_by_program(newcomer, program)[1])
    for slot in (0, 2):
        kept = [e[slot] for e in (first, *later)][:EPOCHS]
        assert kept == undisturbed[slot].metrics


def test_members_that_move_to_another_variant_go_on_where_they_were() -> None:
    shared = {**MLP, "optimizer": "rmsprop", "batch_norm": True, "momentum": 0.5}
    request = stack_of("mlp", WINE, [{**shared, "learning_rate": r} for r in (1e-3, 5e-4, 2e-4)])
    straight = trained_by_program(request)
    slots = Slots(program_of(request, 2))
    for slot in range(3):
        start(slots, slot, request, slot)
    epochs = [trained(slots, range(3))]
    slots.mark_best(1)
    best = slots.best(1)
    for program in (program_of(request, 1, xla=True), program_of(request, 8)):
        slots.move_to(program)
        epochs.append(trained(slots, range(3)))
    for mine, kept in zip(slots.best(1), best, strict=True):
        np.testing.assert_array_equal(mine, kept)
    for slot in range(3):
        assert_same(outcome(slots, slot, [e[slot] for e in epochs]), straight[slot])
