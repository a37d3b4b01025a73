"""Waveforms as log-mel spectrograms, by the Keras layers that an exported model begins with.

A spectrogram has no trained weights, so it is computed once for all trials that share its frames and bands, and not at
every step (docs/adr/0010-spectrograms-once.md): a network is trained on exactly what the exported model's first
layers give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.families import Scalar
from worker.training.data.sources import DatasetInfo

Floats = NDArray[np.float32]

ROWS_AT_ONCE = 256
"""Waveforms that go through the layers together."""
TOP_DB = 1_000.0
"""Keras cuts off what lies so far below the loudest value of the *whole batch*: so far that it never does, else a
recording's spectrogram would depend on its neighbours."""
LOWEST_HZ = 20.0
"""Lower edge of the lowest band: Keras' default."""
SMALLEST_DEVIATION_DB = 1.0
"""A band that varies less is not blown up: one between two frequency bins may have no power at all."""


@dataclass(frozen=True, slots=True)
class LogMel:
    """Spectrograms in decibels: power in `bands` of the mel scale (HTK's formula) in frames of a Hann window.

    `frame_length` and `frame_step` count samples; a frame is padded to a power of two. `mean` and `variance`, [bands]
    float32, standardise each band; without them spectrograms stay in decibels.
    """

    samples: int
    sample_rate: int
    frame_length: int
    frame_step: int
    bands: int
    mean: Floats | None = None
    variance: Floats | None = None

    @property
    def frames(self) -> int:
        """Frames of a recording: their middles lie on every `frame_step`-th sample from the first on."""
        return 1 + self.samples // self.frame_step

    def prepared(self, features: NDArray[Any]) -> Floats:
        """Waveforms, [n, samples] float32, as spectrograms, [n, frames, bands, 1]: what `layers` give."""
        layers = self.layers()
        pieces = []
        for start in range(0, len(features), ROWS_AT_ONCE):
            x = features[start : start + ROWS_AT_ONCE]
            for layer in layers:
                x = layer(x)
            pieces.append(np.asarray(x))
        return np.concatenate(pieces)

    def layers(self) -> list[Any]:
        """The built-in Keras layers that do it, in order."""
        import keras

        layers = [
            keras.layers.MelSpectrogram(
                fft_length=1 << (self.frame_length - 1).bit_length(),
                sequence_stride=self.frame_step,
                sequence_length=self.frame_length,
                sampling_rate=self.sample_rate,
                num_mel_bins=self.bands,
                min_freq=LOWEST_HZ,
                top_db=TOP_DB,
                name="log_mel",
            ),
            keras.layers.Permute((2, 1), name="frames_first"),
        ]
        if self.mean is not None:
            layers.append(keras.layers.Normalization(mean=self.mean, variance=self.variance, name="standardised"))
        if self.samples % self.frame_step == self.frame_step - 1:
            # Keras 3.15 declares one frame more than MelSpectrogram then gives; without the last sample, which starts
            # no frame, both agree.
            layers = [
                keras.layers.Reshape((self.samples, 1), name="samples"),
                keras.layers.Cropping1D((0, 1), name="all_but_the_last"),
                keras.layers.Reshape((self.samples - 1,), name="waveform"),
                *layers,
            ]
        return [*layers, keras.layers.Reshape((self.frames, self.bands, 1), name="spectrogram")]


def fit_log_mel(info: DatasetInfo, training: NDArray[Any], options: Mapping[str, Scalar]) -> LogMel:
    """Log-mel spectrograms whose bands are standardised by those of the training part, [n, samples]."""
    samples = training.shape[1]
    frames = int(options["frame_length"]), int(options["frame_step"]), int(options["mel_bands"])
    raw = LogMel(samples, info.sample_rate, *frames)
    decibels = raw.prepared(training)
    mean = decibels.mean((0, 1, 3), dtype=np.float64).astype(np.float32)
    variance = decibels.var((0, 1, 3), dtype=np.float64).astype(np.float32)
    least = np.float32(SMALLEST_DEVIATION_DB**2)
    return LogMel(samples, info.sample_rate, *frames, mean, np.maximum(variance, least))
