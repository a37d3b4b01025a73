"""Augmentation: its statistics, and that it is a member's own whatever trains beside it."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from app.domain.study import DatasetSpec
from tests.acceptance.training_reference import program_of, stack_of, start, trained
from worker.training.models.augmentation import Augmentation
from worker.training.runtime_parameters import AUGMENTS
from worker.training.slots import Slots

pytestmark = pytest.mark.tensorflow

HEIGHT, WIDTH, BATCH = 10, 20, 400
# Pixels tell where they came from.
PIXELS = np.arange(HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH, 1)


def augmented(kind: Any, *members: dict[str, float], step: int = 0, x: np.ndarray = PIXELS) -> np.ndarray:
    """`BATCH` copies of `x` for each member, augmented: [K, BATCH, …]. Seeds are 0, 1, …"""
    amounts = {name: tf.constant([m.get(name, 0.0) for m in members], tf.float32) for name in AUGMENTS}
    count = len(members)
    augment = Augmentation(
        amounts,
        places=tf.constant(any(v for m in members for name, v in m.items() if name != "noise")),
        noise=tf.constant(any("noise" in m for m in members)),
        seeds=tf.range(count, dtype=tf.int64),
        counts=tf.fill([count], tf.constant(step, tf.int64)),
    )
    return augment(tf.constant(np.broadcast_to(x, (count, BATCH, *x.shape))), kind).numpy()


def assert_share(found: float, expected: float, draws: int) -> None:
    """Within four standard deviations of a share of independent draws."""
    assert abs(found - expected) <= 4 * np.sqrt(expected * (1 - expected) / draws)


def test_images_are_mirrored_as_often_as_asked() -> None:
    for share, images in zip((0.0, 0.25, 1.0), augmented("image", {}, {"flip": 0.25}, {"flip": 1.0}), strict=True):
        mirrored = (images == PIXELS[:, ::-1]).all((1, 2, 3))
        assert (mirrored | (images == PIXELS).all((1, 2, 3))).all()
        assert_share(mirrored.mean(), share, BATCH)


def test_images_are_moved_each_way_by_any_number_of_pixels_up_to_the_most() -> None:
    images = np.concatenate([augmented("image", {"shift": 0.2}, step=step)[0] for step in range(10)])[..., 0]
    for axis, most in ((0, 2), (1, 4)):
        middle = images[:, HEIGHT // 2, WIDTH // 2].astype(int)
        place = middle // WIDTH if axis == 0 else middle % WIDTH
        shifts = (HEIGHT // 2 if axis == 0 else WIDTH // 2) - place
        values, counts = np.unique(shifts, return_counts=True)
        assert values.tolist() == list(range(-most, most + 1))
        for count in counts:
            assert_share(count / len(images), 1 / (2 * most + 1), len(images))
    # Beyond the edge the edge is repeated: what is shown is always a pixel of its own row and column order.
    rows, columns = images.astype(int) // WIDTH, images.astype(int) % WIDTH
    assert (np.diff(rows, axis=1) >= 0).all()
    assert (np.diff(columns, axis=2) >= 0).all()


def test_cutout_masks_a_square_by_the_mean_anywhere_also_over_the_edge() -> None:
    (images,) = augmented("image", {"cutout": 0.5}, x=np.sqrt(PIXELS))
    masked = np.isclose(images, np.sqrt(PIXELS).mean(), rtol=1e-5)[..., 0]
    assert (images[..., 0][~masked] == np.broadcast_to(np.sqrt(PIXELS)[..., 0], masked.shape)[~masked]).all()
    heights, widths = masked.any(2).sum(1), masked.any(1).sum(1)
    assert (masked.sum((1, 2)) == heights * widths).all()
    assert set(heights) == {3, 4, 5}
    assert set(widths) == set(range(5, 11))
    centre = masked[:, HEIGHT // 2, WIDTH // 2].mean()
    assert_share(centre, 0.5 * 0.5, BATCH)


def test_noise_is_normal_with_the_members_deviation() -> None:
    for deviation, images in zip((0.0, 0.1, 2.0), augmented("image", {}, {"noise": 0.1}, {"noise": 2.0}), strict=True):
        noise = (images - PIXELS).ravel()
        assert abs(noise.mean()) <= 4 * deviation / np.sqrt(noise.size)
        assert noise.std() == pytest.approx(deviation, rel=0.02)
        if deviation:
            for sigmas, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
                assert_share((np.abs(noise) < sigmas * deviation).mean(), share, noise.size)


def test_spectrograms_move_in_time_alone_and_lose_runs_of_frames_and_bands() -> None:
    moved, masked = augmented("spectrogram", {"shift": 0.2}, {"time_mask": 0.4, "band_mask": 0.5}, x=np.sqrt(PIXELS))
    assert len({spectrogram.tobytes() for spectrogram in moved}) == 5
    columns = np.round(moved[..., 0] ** 2).astype(int) % WIDTH
    assert (columns == np.arange(WIDTH)).all()
    hidden = np.isclose(masked, np.sqrt(PIXELS).mean(), rtol=1e-5)[..., 0]
    frames, bands = hidden.all(2), hidden.all(1)
    assert (hidden == (frames[:, :, np.newaxis] | bands[:, np.newaxis])).all()
    for runs, most in ((frames, 4), (bands, 10)):
        lengths, counts = np.unique(runs.sum(1), return_counts=True)
        assert lengths.tolist() == list(range(most + 1))
        assert (np.abs(np.diff(runs, axis=1, prepend=False, append=False)).sum(1) == 2 * (runs.sum(1) > 0)).all()
        for count in counts:
            assert_share(count / BATCH, 1 / (most + 1), BATCH)


def test_members_samples_and_steps_are_changed_in_ways_of_their_own() -> None:
    asked = {"shift": 0.4, "noise": 0.1}
    first, second = augmented("image", asked, asked)
    (later,) = augmented("image", asked, step=1)
    found = {image.tobytes() for images in (first, second, later) for image in images}
    assert len(found) == 3 * BATCH


@pytest.mark.parametrize(
    ("family", "dataset", "shared", "amounts"),
    [
        (
            "image-resnet",
            DatasetSpec(name="digits", validation_fraction=0.8),
            {"filters": 8, "stages": 1, "learning_rate": 3e-3, "batch_norm": True},
            {"flip": 0.5, "shift": 0.2, "noise": 0.1, "cutout": 0.4},
        ),
        (
            "audio-cnn",
            DatasetSpec(name="spoken-digits", test_fraction=0.6),
            {"filters": 2, "conv_layers": 2, "frame_step": 256, "mel_bands": 12, "frame_length": 512},
            {"shift": 0.1, "noise": 0.3, "time_mask": 0.2, "band_mask": 0.2},
        ),
    ],
)
def test_a_member_trains_alike_whatever_trains_beside_it_and_whoever_compiles(
    family: str, dataset: DatasetSpec, shared: dict[str, Any], amounts: dict[str, float]
) -> None:
    shared = {**shared, "batch_size": 64}
    augmenting = {**shared, **{f"augment_{name}": amount for name, amount in amounts.items()}}
    request = stack_of(family, dataset, [shared, augmenting], seeds=[7, 7])
    alone = stack_of(family, dataset, [augmenting], seeds=[7])
    runs = []
    for asked, xla in ((request, False), (alone, False), (alone, True)):
        width = len(asked.members)
        slots = Slots(program_of(asked, xla=xla))
        for slot in range(width):
            start(slots, slot, asked, slot)
        runs.append([trained(slots, range(width)) for _ in range(2)])
    stacked, by_itself, compiled = runs
    for epoch in range(2):
        plain, mine = stacked[epoch][0], stacked[epoch][1]
        assert abs(plain.loss - mine.loss) > 1e-3
        for other in (by_itself[epoch][0], compiled[epoch][0]):
            assert other.loss == pytest.approx(mine.loss, rel=1e-4)
            assert other.val_loss == pytest.approx(mine.val_loss, rel=1e-4)
