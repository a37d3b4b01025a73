"""Mixed precision, gradient accumulation and class weights train as Keras does with them, each member by itself."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
from typing import Any

import numpy as np
import pytest

from app.domain.study import TrainingSpec
from tests.acceptance.training_reference import (
    CNN,
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
from worker.training.network_registry import BUILT_IN_NETWORKS
from worker.training.precision import INITIAL_SCALE
from worker.training.slots import Slots

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


HALF = {
    "mlp": ("mlp", WINE, {**MLP, "optimizer": "adam"}, [{"l2": 1e-3}, {"activation": "tanh", "learning_rate": 3e-4}]),
    "mlp-batch-norm": ("mlp", WINE, {**MLP, "optimizer": "sgd", "batch_norm": True}, [{"momentum": 0.9}, {}]),
    # Not by Adam: a bias before batch normalisation has no gradient but rounding, which Adam scales up.
    "cnn": ("image-cnn", FEW_DIGITS, {**CNN, "optimizer": "sgd", "batch_norm": True}, [{}, {"momentum": 0.9}]),
    "cnn-average": ("image-cnn", FEW_DIGITS, {**CNN, "optimizer": "sgd", "pooling": "average"}, [{"momentum": 0.9}]),
}
ROUNDING = {"mixed_float16": 2e-3, "mixed_bfloat16": 2e-2}
"""How far weights and losses may be from Keras': a few roundings of numbers of the order of 1 (2⁻¹¹ and 2⁻⁸ each)."""


def training(**fields: Any) -> TrainingSpec:
    return TrainingSpec(epochs=EPOCHS, **fields)


def assert_near(actual: Trained, expected: Trained, tolerance: float) -> None:
    np.testing.assert_allclose(actual.weights, expected.weights, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(actual.statistics, expected.statistics, rtol=tolerance, atol=tolerance)
    for mine, theirs in zip(actual.metrics, expected.metrics, strict=True):
        for name in ("loss", "val_loss", "learning_rate"):
            assert getattr(mine, name) == pytest.approx(getattr(theirs, name), rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize("xla", [False, True], ids=["plain", "xla"])
@pytest.mark.parametrize("precision", list(ROUNDING))
@pytest.mark.parametrize("name", HALF)
def test_half_precision_trains_as_keras_does_under_its_policy(name: str, precision: str, xla: bool) -> None:
    family, dataset, shared, own = HALF[name]
    request = stack_of(
        family, dataset, [{**shared, **values} for values in own], training=training(precision=precision)
    )
    program = program_of(request, xla=xla)
    for member, actual in enumerate(trained_by_program(request, program)):
        assert_near(actual, trained_by_keras(request, member, program), ROUNDING[precision])


def test_half_precision_is_another_arithmetic_and_not_float32_by_another_name() -> None:
    members = [{**MLP, "optimizer": "adam"}]
    found = {
        precision: trained_by_program(stack_of("mlp", WINE, members, training=training(precision=precision)))[0].weights
        for precision in ("float32", "mixed_float16", "mixed_bfloat16")
    }
    off16 = np.abs(found["mixed_float16"] - found["float32"]).max()
    off_bf16 = np.abs(found["mixed_bfloat16"] - found["float32"]).max()
    assert 0 < off16 < off_bf16


def scales(slots: Slots, slot: int) -> list[float]:
    """Scale, good steps and skipped steps of the member in a slot."""
    return [float(values[0]) for values in slots.rows([slot])[slot][0].slots[-3:]]


def test_an_overflow_skips_its_own_step_halves_its_own_scale_and_leaves_the_neighbour_alone() -> None:
    # Features of wine are standardised; weights of 3·10⁵ can't be told in float16, their gradients overflow.
    shared = {**MLP, "optimizer": "adam", "lr_schedule": "exponential", "decay_epochs": 1.0}
    request = stack_of(
        "mlp", WINE, [shared, {**shared, "global_clipnorm": 1.0}], training=training(precision="mixed_float16")
    )
    program = program_of(request)
    calm = Slots(program)
    for slot in (0, 1):
        start(calm, slot, request, slot)
    undisturbed = outcome(calm, 0, [trained(calm, [0, 1])[0]])
    slots = Slots(program)
    for slot in (0, 1):
        start(slots, slot, request, slot)
    row = slots.rows([1])[1][0]
    wild = dataclasses.replace(row, slots=(*row.slots[:-3], np.array([2.0**40], np.float32), *row.slots[-2:]))
    slots._place(1, wild)
    metrics = trained(slots, [0, 1])
    np.testing.assert_array_equal(outcome(slots, 0, [metrics[0]]).weights, undisturbed.weights)
    assert metrics[0] == undisturbed.metrics[0]
    assert scales(slots, 0) == [INITIAL_SCALE, program.steps_per_epoch, 0]
    # Every step of the first epoch overflowed: nothing was learned, and the schedule stands where it stood.
    scale, good, skipped = scales(slots, 1)
    assert (scale, good, skipped) == (2.0**40 / 2**program.steps_per_epoch, 0, program.steps_per_epoch)
    np.testing.assert_array_equal(outcome(slots, 1, []).weights, row.weights)
    assert metrics[1].learning_rate == pytest.approx(1e-3)
    for _ in range(40):
        metrics = trained(slots, [0, 1])
    scale, good, skipped = scales(slots, 1)
    assert good > 0
    assert skipped < 41 * program.steps_per_epoch
    assert not np.array_equal(outcome(slots, 1, []).weights, row.weights)


ACCUMULATED = {
    "mlp": ("mlp", WINE, {"hidden_layers": 2, "units": 8, "optimizer": "adam"}, {"lr_schedule": "cosine", "l2": 1e-3}),
    "clipped": ("mlp", WINE, {"units": 8, "optimizer": "sgd"}, {"momentum": 0.9, "global_clipnorm": 0.1}),
    "cnn": ("image-cnn", FEW_DIGITS, {**CNN, "optimizer": "adamw"}, {"weight_decay": 0.1}),
}


@pytest.mark.parametrize("xla", [False, True], ids=["plain", "xla"])
@pytest.mark.parametrize("name", ACCUMULATED)
def test_batches_accumulated_give_the_update_of_one_batch_as_large_as_all_of_them(name: str, xla: bool) -> None:
    # 142 samples of wine, 179 of digits: the last group is a partial one, of which the last batch is partial, or none.
    family, dataset, shared, own = ACCUMULATED[name]
    parts = [{**shared, **own, "batch_size": 16, "gradient_accumulation_steps": 3} for _ in range(2)]
    request = stack_of(family, dataset, parts)
    program = program_of(request, xla=xla)
    assert (program.samples_at_once, program.parts, program.batch_size) == (16, 3, 48)
    whole = stack_of(family, dataset, [{**shared, **own, "batch_size": 48} for _ in range(2)])
    accumulated, direct = trained_by_program(request, program), trained_by_program(whole)
    for member in (0, 1):
        np.testing.assert_allclose(accumulated[member].weights, direct[member].weights, rtol=1e-4, atol=2e-6)
        for mine, theirs in zip(accumulated[member].metrics, direct[member].metrics, strict=True):
            np.testing.assert_allclose(dataclasses.astuple(mine), dataclasses.astuple(theirs), rtol=1e-4, atol=2e-6)
    expected = trained_by_keras(request, 0, program)
    np.testing.assert_allclose(accumulated[0].weights, expected.weights, rtol=1e-4, atol=2e-6)


def test_accumulating_more_than_there_is_trains_on_the_whole_of_it_with_every_part_normalised_by_itself() -> None:
    member = {**MLP, "batch_size": 100, "gradient_accumulation_steps": 50, "batch_norm": True, "dropout": 0.2}
    request = stack_of("mlp", WINE, [member])
    program = program_of(request)
    assert (program.steps_per_epoch, program.parts) == (1, 2)
    done = trained_by_program(request, program)[0]
    assert np.isfinite(done.weights).all()
    assert np.isfinite(done.statistics).all()


@pytest.mark.parametrize("weights", ["balanced", {"class_0": 3.0, "2": 0.25}], ids=["balanced", "given"])
@pytest.mark.parametrize("xla", [False, True], ids=["plain", "xla"])
def test_classes_are_weighted_as_by_keras_fit_in_training_and_not_in_validation(weights: Any, xla: bool) -> None:
    own = [{"label_smoothing": 0.1}, {"learning_rate": 3e-4, "l1": 1e-3}]
    members = [{**MLP, "optimizer": "adam", **values} for values in own]
    request = stack_of("mlp", WINE, members, training=training(class_weights=weights))
    program = program_of(request, xla=xla)
    plain = trained_by_program(stack_of("mlp", WINE, members))
    for member, actual in enumerate(trained_by_program(request, program)):
        expected = trained_by_keras(request, member, program)
        np.testing.assert_allclose(actual.weights, expected.weights, rtol=1e-4, atol=2e-6)
        for mine, theirs in zip(actual.metrics, expected.metrics, strict=True):
            np.testing.assert_allclose(dataclasses.astuple(mine), dataclasses.astuple(theirs), rtol=1e-4, atol=2e-6)
        assert abs(actual.metrics[0].loss - plain[member].metrics[0].loss) > 1e-3


def test_one_program_serves_all_weights_of_classes() -> None:
    from worker.training.signature import structural_signature

    def signature(**fields: Any) -> Any:
        return structural_signature(stack_of("mlp", WINE, [MLP], training=training(**fields)), BUILT_IN_NETWORKS)

    assert signature(class_weights="balanced") == signature(class_weights={"0": 2.0})
    assert signature(class_weights="balanced") != signature()
    assert signature(precision="mixed_float16") != signature()
