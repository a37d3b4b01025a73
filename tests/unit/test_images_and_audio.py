"""Residual and audio networks before they train: sizes, shapes, splits by group, and the recordings themselves."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hatchling.builders.wheel import WheelBuilder

from app.domain.checks.definition import Limits, check_definition
from app.domain.datasets import BUNDLED
from app.domain.families import FAMILIES
from app.domain.registry import BUILT_IN
from app.domain.size import parameter_estimate
from app.domain.study import DatasetSpec, StudyDefinition
from worker.trainer.trainable import Refused
from worker.training.data import SOURCES
from worker.training.data.sources import source
from worker.training.data.split import parts_of
from worker.training.data.spoken_digits import CLIPS, SAMPLE_RATE, VOICES, WORDS, decoded, spoken_digits
from worker.training.models import BUILDERS, architecture

ROOT = Path(__file__).parents[2]
SPOKEN = BUNDLED["spoken-digits"]


def definition(family: str, dataset: dict[str, Any], **hyperparameters: Any) -> StudyDefinition:
    return StudyDefinition.model_validate(
        {
            "name": "study",
            "model": {"family": family},
            "dataset": dataset,
            "hyperparameters": hyperparameters,
            "objectives": [{"metric": "val_accuracy", "direction": "maximize"}],
            "budget": {"trials": 1},
        }
    )


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"stages": 1, "blocks": 3, "head": "max"},
        {"stages": 4, "blocks": 2, "stride": 3, "kernel_size": 2, "head": "flatten"},
        {"stages": 2, "stride": 1, "filters": 5, "head": "flatten"},
    ],
)
@pytest.mark.parametrize("dataset", ["digits", "shapes"])
def test_the_estimate_of_a_residual_network_is_its_size(asked: dict[str, Any], dataset: str) -> None:
    values = FAMILIES["image-resnet"].defaults() | asked
    data = BUNDLED[dataset]
    made = architecture(BUILDERS["image-resnet"], data.shape, values, data.outputs)
    assert parameter_estimate("image-resnet", values, data) == made.parameter_count
    assert made.output == (10,)


def test_the_estimate_of_a_space_is_that_of_its_largest_network() -> None:
    space = {
        "stride": {"type": "int", "low": 1, "high": 3},
        "head": {"type": "categorical", "choices": ["max", "flatten"]},
    }
    checked = check_definition(definition("image-resnet", {"name": "shapes"}, **space), Limits(), families=BUILT_IN)
    largest = FAMILIES["image-resnet"].defaults() | {"stride": 1, "head": "flatten"}
    made = architecture(BUILDERS["image-resnet"], BUNDLED["shapes"].shape, largest, 10)
    assert not checked.errors
    estimate = parameter_estimate("image-resnet", checked.definition.hyperparameters, BUNDLED["shapes"])
    assert estimate == made.parameter_count


@pytest.mark.parametrize("asked", [{"pooling": "none"}, {"mel_bands": 40, "frame_step": 100, "dense_units": 0}])
def test_the_estimate_of_an_audio_network_is_no_less_than_its_size(asked: dict[str, Any]) -> None:
    values = FAMILIES["audio-cnn"].defaults() | asked
    shape = (1 + SPOKEN.features // values["frame_step"], values["mel_bands"], 1)
    made = architecture(BUILDERS["audio-cnn"], shape, values, SPOKEN.outputs)
    estimate = parameter_estimate("audio-cnn", values, SPOKEN)
    assert estimate is not None
    assert made.parameter_count <= estimate <= 1.5 * made.parameter_count


def test_frames_bands_stages_and_heads_are_structural_and_augmentation_is_not() -> None:
    for name, others in (
        ("image-resnet", {"stages", "blocks", "filters", "kernel_size", "stride", "head", "batch_norm"}),
        ("audio-cnn", {"frame_length", "frame_step", "mel_bands", "conv_layers", "pooling", "dense_units"}),
    ):
        family = FAMILIES[name]
        structural = {h.name for h in family.hyperparameters if h.structural}
        assert others <= structural
        augmenting = {h.name for h in family.hyperparameters if h.name.startswith("augment_")}
        assert len(augmenting) == 4
        assert not augmenting & structural
        assert all(family.defaults()[name] == 0 for name in augmenting)


def test_what_is_said_of_the_recordings_is_true_and_they_are_the_same_each_time() -> None:
    recordings, words, voices = spoken_digits()
    info = SOURCES["spoken-digits"].info
    assert recordings.shape == (SPOKEN.rows, *SPOKEN.shape) == (info.n, *info.shape)
    assert (SPOKEN.classes, SPOKEN.groups, SPOKEN.sample_rate) == (len(WORDS), VOICES, SAMPLE_RATE)
    assert info.classes == WORDS
    assert recordings.dtype == np.float32
    peaks = np.abs(recordings).max(1)
    assert peaks.max() <= 1
    assert peaks.min() >= 0.0999
    # Every voice says every word as often.
    assert np.unique(voices * len(WORDS) + words, return_counts=True)[1].tolist() == [8] * VOICES * len(WORDS)
    assert CLIPS.stat().st_size < 2_000_000
    assert np.abs(recordings).mean(dtype=np.float64) == pytest.approx(0.036122, abs=1e-6)


def test_the_wheel_brings_the_recordings_along(tmp_path: Path) -> None:
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(wheel) as held:
        assert held.read(CLIPS.relative_to(ROOT).as_posix()) == CLIPS.read_bytes()


def test_levels_are_those_of_the_mu_law() -> None:
    levels = np.arange(64, dtype=np.uint8)
    waveform = decoded(levels)
    assert (waveform[0], waveform[-1]) == pytest.approx((-1, 1))
    assert (np.diff(waveform) > 0).all()
    np.testing.assert_allclose(waveform, -waveform[::-1], atol=1e-12)
    squeezed = np.sign(waveform) * np.log1p(255 * np.abs(waveform)) / np.log(256)
    np.testing.assert_allclose((squeezed + 1) / 2 * 63, levels, atol=1e-9)


def test_a_grouped_split_hears_no_voice_in_two_parts() -> None:
    _, words, voices = spoken_digits()
    found = []
    for seed in range(2):
        spec = DatasetSpec(
            name="spoken-digits", grouped=True, validation_fraction=0.2, test_fraction=0.1, split_seed=seed
        )
        parts = parts_of(source(spec.name), spec, words)
        assert tuple(len(np.unique(voices[part])) for part in parts) == SPOKEN.grouped_split(0.2, 0.1) == (7, 3, 2)
        assert sorted(np.concatenate([np.unique(voices[part]) for part in parts])) == list(range(VOICES))
        assert sorted(np.concatenate(parts)) == list(range(len(words)))
        found.append(parts[1].tolist())
    assert found[0] != found[1]


def test_a_random_split_hears_voices_in_both_parts() -> None:
    _, words, voices = spoken_digits()
    train, validation, _ = parts_of(source("spoken-digits"), DatasetSpec(name="spoken-digits"), words)
    assert set(voices[validation]) == set(voices[train])


def test_a_grouped_split_of_data_without_groups_is_refused_by_the_trainer_too() -> None:
    with pytest.raises(Refused, match="form groups"):
        parts_of(source("digits"), DatasetSpec(name="digits", grouped=True), np.zeros(1797, np.int32))
    spec = DatasetSpec(name="spoken-digits", grouped=True, validation_fraction=0.95)
    with pytest.raises(Refused, match="12 groups"):
        parts_of(source(spec.name), spec, spoken_digits()[1])
