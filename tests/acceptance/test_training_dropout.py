"""Dropout masks: their statistics, and that they are a member's own whatever trains beside it."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import tensorflow as tf

from app.domain.study import DatasetSpec
from tests.acceptance.training_reference import program_of, stack_of, start, trained
from worker.training.runtime_parameters import columns_of, knobs_of
from worker.training.slots import Slots

pytestmark = pytest.mark.tensorflow

MLP = {"hidden_layers": 2, "units": 64, "batch_size": 64}


def slots_of(rates: list[float], seeds: list[int]) -> Slots:
    members = [{**MLP, "dropout": r, "learning_rate": 0.01} for r in rates]
    request = stack_of("mlp", DatasetSpec(name="wine"), members, seeds=seeds)
    slots = Slots(program_of(request))
    for slot in range(len(rates)):
        start(slots, slot, request, slot)
    return slots


def masks_of(slots: Slots, step: int) -> list[np.ndarray]:
    """The masks of each layer, [K, B, units], at a step."""
    block, _ = slots._where(0)
    block.settle()
    counts = tf.fill([slots.program.members], tf.constant(step, tf.int64))
    masks = slots.program.epoch.masks(knobs_of(columns_of(tf.constant(block.runtime))), counts)
    return [m.numpy() for m in masks]


def test_masks_drop_the_members_share_and_scale_the_rest() -> None:
    rates = [0.0, 0.1, 0.5, 0.9]
    slots = slots_of(rates, [1, 2, 3, 4])
    steps = [masks_of(slots, step) for step in range(30)]
    for slot, rate in enumerate(rates):
        drawn = np.stack([layer[slot] for step in steps for layer in step])
        np.testing.assert_allclose(np.unique(drawn), [0, 1 / (1 - rate)] if rate else [1], rtol=1e-6)
        # 245,760 draws: four standard deviations of the share that is dropped.
        assert abs((drawn == 0).mean() - rate) <= 4 * np.sqrt(rate * (1 - rate) / drawn.size)
        assert drawn.mean() == pytest.approx(1, abs=0.03)


def test_members_layers_and_steps_have_masks_of_their_own() -> None:
    slots = slots_of([0.5, 0.5], [1, 2])
    drawn = [layer[slot] for step in range(3) for layer in masks_of(slots, step) for slot in range(2)]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            # Independent masks of rate one half agree in half of their units: 0.4 is 13 standard deviations away.
            assert 0.4 < (one == other).mean() < 0.6


def test_a_members_masks_depend_on_its_seed_alone_not_on_slot_width_or_neighbours() -> None:
    alone, stacked = slots_of([0.3], [7]), slots_of([0.5, 0.0, 0.3], [1, 2, 7])
    for step in (0, 5):
        for mine, theirs in zip(masks_of(alone, step), masks_of(stacked, step), strict=True):
            np.testing.assert_array_equal(mine[0], theirs[2])
    for _ in range(2):
        one, many = trained(alone, [0])[0], trained(stacked, [0, 1, 2])[2]
        assert one.loss == pytest.approx(many.loss, rel=1e-4)
        assert one.val_loss == pytest.approx(many.val_loss, rel=1e-4)


def test_dropout_trains_with_more_loss_than_without_and_evaluates_without_it() -> None:
    slots = slots_of([0.0, 0.8], [5, 5])
    first = trained(slots, [0, 1])
    assert first[1].loss > first[0].loss
    for _ in range(10):
        last = trained(slots, [0, 1])
    assert last[1].val_loss < last[1].loss
