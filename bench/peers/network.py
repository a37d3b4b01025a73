"""The peers' data and network: what a user of plain Keras writes for these works. One trial is one `trained` call."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from bench.peers.transformer import tokens, transformer
from bench.works import DECAY_EPOCHS, SPLIT_SEED, VALIDATION_FRACTION, Work

CLASSES = 10


@dataclass(frozen=True)
class Split:
    """Training and validation part: features float32 0..1, [n, d] or [n, height, width, 1]; labels [n] int.

    Texts are token numbers, [n, length] int32.
    """

    x: Any
    y: Any
    x_val: Any
    y_val: Any


def load(work: Work, data: Path | None = None) -> Split:
    """The work's data, split as Fettle splits it; recordings and texts are read from the file `data`.

    Recordings become spectrograms, texts token numbers.

    Raises:
        ValueError: a work on texts has no such file.
    """
    if work.family == "text-transformer":
        if data is None:
            raise ValueError(f"Expected a file of texts for {work.name}, after --data. Received: none")
        return Split(*tokens(work, data))
    if data is not None:
        with np.load(data) as held:
            x, x_val, y, y_val = _parts(held["x"], held["y"])
            spectrograms = partial(_decibels, work, int(held["sample_rate"]))
        x, x_val = spectrograms(x), spectrograms(x_val)
        mean, deviation = x.mean((0, 1)), x.std((0, 1))
        return Split(((x - mean) / deviation)[..., np.newaxis], y, ((x_val - mean) / deviation)[..., np.newaxis], y_val)
    if work.dataset == "shapes":
        from worker.training.shape_images import shapes

        images, labels = shapes()
    else:
        images, labels = load_digits(return_X_y=True)
        images = (images / 16).reshape(-1, 8, 8).astype("float32")
    images = np.reshape(images, (len(images), -1)) if work.family == "mlp" else images[..., np.newaxis]
    x, x_val, y, y_val = _parts(images, labels)
    return Split(x, y, x_val, y_val)


def _parts(x: Any, y: Any) -> Any:
    return train_test_split(x, y, test_size=VALIDATION_FRACTION, random_state=SPLIT_SEED, stratify=y)


def _decibels(work: Work, sample_rate: int, recordings: Any) -> Any:
    """Log-mel spectrograms, [n, frames, bands], by Keras' layer: once for all trials, as they have no weights."""
    layer = keras.layers.MelSpectrogram(
        fft_length=work.network["frame_length"],
        sequence_stride=work.network["frame_step"],
        sampling_rate=sample_rate,
        num_mel_bins=work.network["mel_bands"],
        top_db=1000.0,
    )
    return np.swapaxes(layer(recordings).numpy(), 1, 2)


def compiled(work: Work, split: Split, values: dict[str, Any]) -> Any:
    """The network for sampled `values`, compiled."""
    penalty = keras.regularizers.L1L2(values["l1"], values["l2"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(_learning_rate(values, len(split.x)))
    if work.family == "text-transformer":
        model = transformer(work, values, penalty, int(split.y.max()) + 1)
        model.compile(optimizer, loss, metrics=["accuracy"])
        return model
    layers: list[Any] = [keras.Input(split.x.shape[1:])]
    if work.family == "mlp":
        for _ in range(work.network["hidden_layers"]):
            layers += [
                keras.layers.Dense(work.network["units"], values["activation"], kernel_regularizer=penalty),
                keras.layers.Dropout(values["dropout"]),
            ]
    else:
        for block in range(work.network["conv_layers"]):
            layers += [
                keras.layers.Conv2D(
                    work.network["filters"] * 2**block,
                    work.network["kernel_size"],
                    padding="same",
                    activation=values["activation"],
                    kernel_regularizer=penalty,
                ),
                keras.layers.MaxPooling2D(2),
                keras.layers.Dropout(values["dropout"]),
            ]
        layers.append(keras.layers.Flatten())
    model = keras.Sequential([*layers, keras.layers.Dense(CLASSES, kernel_regularizer=penalty)])
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def _learning_rate(values: dict[str, Any], samples: int) -> Any:
    rate, schedule = values["learning_rate"], values["lr_schedule"]
    if schedule == "constant":
        return rate
    steps = DECAY_EPOCHS * -(-samples // values["batch_size"])
    return keras.optimizers.schedules.ExponentialDecay(rate, steps, values["decay_rate"], staircase=schedule == "step")


def trained(
    work: Work, split: Split, values: dict[str, Any], seed: int, callbacks: tuple[Any, ...] = ()
) -> tuple[float, int]:
    """One trial: its best validation accuracy over the epochs, as Fettle's `select_epoch: best`, and epochs trained."""
    keras.utils.set_random_seed(seed)
    model = compiled(work, split, values)
    history = model.fit(
        split.x,
        split.y,
        values["batch_size"],
        work.epochs,
        verbose=0,
        validation_data=(split.x_val, split.y_val),
        callbacks=list(callbacks),
    ).history["val_accuracy"]
    keras.backend.clear_session()
    return float(max(history)), len(history)


def warm_up(split: Split) -> None:
    """Bring TensorFlow up before the clock starts: its first call is not the peer's fault, and Fettle's is warm too."""
    layers = [keras.Input(split.x.shape[1:]), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
    keras.Sequential(layers).predict(split.x[:1], verbose=0)
