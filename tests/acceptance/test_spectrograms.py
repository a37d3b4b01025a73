"""Spectrograms: what a network is trained on is what the exported model computes, and what the formulas say."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.signal import get_window

from app.domain.families import FAMILIES
from app.domain.study import DatasetSpec, TrainingSpec
from tests.acceptance.training_reference import program_of, stack_of, start, trained
from worker.training.data import SOURCES, load_split
from worker.training.data.spectrogram import LogMel
from worker.training.data.split import parts_of
from worker.training.export import exported_model, save_model
from worker.training.signature import filled
from worker.training.slots import Slots

pytestmark = pytest.mark.tensorflow

RECORDINGS = DatasetSpec(name="spoken-digits", grouped=True, validation_fraction=0.25, test_fraction=0.25)
SAMPLES, RATE = 6_400, 8_000


def tones(*hertz: float) -> np.ndarray:
    """One recording of each pure tone, [n, 6400] float32."""
    return np.stack([0.5 * np.sin(2 * np.pi * f * np.arange(SAMPLES) / RATE) for f in hertz]).astype(np.float32)


def by_formula(waveform: np.ndarray, frame_length: int, frame_step: int, bands: int) -> np.ndarray:
    """Decibels of one waveform, [frames, bands] float64, written once more from the definitions."""
    size = 1 << (frame_length - 1).bit_length()
    window = np.zeros(size)
    before = (size - frame_length) // 2
    window[before : before + frame_length] = get_window("hann", frame_length)
    padded = np.pad(waveform.astype(np.float64), size // 2, mode="reflect")
    frames = [padded[i * frame_step :][:size] * window for i in range(1 + len(waveform) // frame_step)]
    power = np.abs(np.fft.rfft(frames)) ** 2
    mel = 1127 * np.log1p(np.fft.rfftfreq(size, 1 / RATE) / 700)
    edges = np.linspace(1127 * np.log1p(20 / 700), 1127 * np.log1p(RATE / 2 / 700), bands + 2)
    rising = (mel[:, np.newaxis] - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - mel[:, np.newaxis]) / np.diff(edges)[1:]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return 10 * np.log10(np.maximum(power @ triangles, 1e-10))


@pytest.mark.parametrize(("frame_length", "frame_step", "bands"), [(256, 128, 32), (400, 301, 20), (200, 100, 24)])
def test_spectrograms_are_what_the_formulas_say(frame_length: int, frame_step: int, bands: int) -> None:
    recordings = SOURCES["spoken-digits"].load()[0][::300]
    found = LogMel(SAMPLES, RATE, frame_length, frame_step, bands).prepared(recordings)
    assert found.shape == (len(recordings), 1 + SAMPLES // frame_step, bands, 1)
    for recording, spectrogram in zip(recordings, found, strict=True):
        expected = by_formula(recording, frame_length, frame_step, bands)
        # float32 rounds what is far below a frame's loudest band.
        np.testing.assert_allclose(spectrogram[..., 0], expected, atol=0.1)
        assert np.abs(spectrogram[..., 0] - expected).mean() < 1e-3


def test_a_tone_is_loudest_in_its_band() -> None:
    spectrograms = LogMel(SAMPLES, RATE, 512, 128, 24).prepared(tones(300, 1000, 3000))[:, 5:-5, :, 0]
    centres = np.linspace(1127 * np.log1p(20 / 700), 1127 * np.log1p(4000 / 700), 26)[1:-1]
    for hertz, spectrogram in zip((300, 1000, 3000), spectrograms, strict=True):
        nearest = np.abs(centres - 1127 * np.log1p(hertz / 700)).argmin()
        assert (spectrogram.argmax(1) == nearest).all()


def test_a_soft_recording_is_the_same_beside_a_loud_one() -> None:
    # Keras cuts off what is 80 dB below the loudest of a whole batch, where it is not told otherwise.
    soft, loud = tones(1000) * 1e-5, tones(500) * 2
    layer = LogMel(SAMPLES, RATE, 256, 128, 32)
    np.testing.assert_array_equal(layer.prepared(np.concatenate([soft, loud]))[:1], layer.prepared(soft))


@pytest.mark.parametrize("frame_step", [128, 301, 37])
def test_a_models_declared_frames_are_those_that_it_gives(frame_step: int) -> None:
    # 6400 leaves frame_step - 1 by 37, where Keras declares one frame too many.
    log_mel = LogMel(SAMPLES, RATE, 64, frame_step, 8)
    x = features = keras.Input((SAMPLES,))
    for layer in log_mel.layers():
        x = layer(x)
    recordings = tones(440)
    found = keras.Model(features, x)(recordings).numpy()
    assert found.shape[1:] == x.shape[1:] == (log_mel.frames, 8, 1)
    np.testing.assert_array_equal(found, log_mel.prepared(recordings))


def test_bands_are_standardised_by_the_training_part() -> None:
    split = load_split(RECORDINGS, "audio", {"frame_length": 256, "frame_step": 128, "mel_bands": 12})
    np.testing.assert_allclose(split.train.x.mean((0, 1, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(split.train.x.std((0, 1, 3)), 1, atol=1e-3)
    assert np.abs(split.validation.x.mean((0, 1, 3))).max() > 1e-3


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_an_exported_model_gives_of_raw_waveforms_what_the_program_measured(tmp_path: Path) -> None:
    hyperparameters = {"filters": 4, "conv_layers": 2, "mel_bands": 16, "frame_step": 37, "frame_length": 100}
    hyperparameters |= {"learning_rate": 3e-3, "batch_norm": True, "augment_noise": 0.3, "augment_shift": 0.1}
    request = stack_of("audio-cnn", RECORDINGS, [hyperparameters], training=TrainingSpec(epochs=4))
    program = program_of(request)
    slots = Slots(program)
    start(slots, 0, request, 0)
    for _ in range(4):
        metrics = trained(slots, [0])[0]
    slots.mark_best(0)
    model = exported_model(program, filled(FAMILIES["audio-cnn"], hyperparameters), *slots.best(0))
    assert model.count_params() == program.architecture.parameter_count
    save_model(model, str(tmp_path / "model.keras"))
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert {type(layer).__module__.split(".")[0] for layer in loaded.layers} == {"keras"}
    recordings, words = SOURCES["spoken-digits"].load()
    validation = parts_of(SOURCES[RECORDINGS.name], RECORDINGS, words)[1]
    recordings, words = recordings[validation], words[validation]
    predicted = loaded.predict(recordings, verbose=0)
    assert (predicted.argmax(1) == words).mean() == pytest.approx(metrics.val_score, abs=1 / len(words))
    loss = -np.log(predicted[np.arange(len(words)), words]).mean()
    assert loss == pytest.approx(metrics.val_loss, rel=1e-4)
