"""What the API expects of a trial's memory and of its classes is what the trainer finds."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from typing import Any

import numpy as np
import pytest

from app.domain.datasets import BUNDLED
from app.domain.families import FAMILIES
from app.domain.memory import memory_estimate
from app.domain.study import DatasetSpec
from tests.acceptance.training_reference import stack_of
from worker.trainer.trainable import Refused
from worker.training.data import SOURCES
from worker.training.memory import PeakMemory, check_fits, dataset_mb, required_mb
from worker.training.network_registry import BUILT_IN_NETWORKS
from worker.training.signature import structural_signature

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("mlp", "digits", {"units": 128, "hidden_layers": 3}),
    ("mlp", "diabetes", {"batch_size": 16}),
    ("image-cnn", "shapes", {"pooling": "none", "filters": 8, "dense_units": 16}),
]


def test_the_domain_names_the_classes_that_the_trainer_has() -> None:
    for name, source in SOURCES.items():
        assert BUNDLED[name].class_names == source.info.classes


@pytest.mark.parametrize(("family", "dataset", "values"), CASES)
def test_the_estimate_before_is_the_trainers_own(family: str, dataset: str, values: dict[str, Any]) -> None:
    signature = structural_signature(stack_of(family, DatasetSpec(name=dataset), [values]), BUILT_IN_NETWORKS)
    expected = memory_estimate(family, {**FAMILIES[family].defaults(), **values}, BUNDLED[dataset])
    assert expected is not None
    assert expected.largest_trial_mb == pytest.approx(required_mb(signature), rel=0.02)
    # Where no test part is kept away all samples are on the device.
    assert expected.dataset_mb == pytest.approx(dataset_mb(signature), rel=0.02)


def test_a_trial_fits_where_it_and_its_data_do() -> None:
    signature = structural_signature(stack_of("mlp", DatasetSpec(name="digits"), [{"units": 512}]), BUILT_IN_NETWORKS)
    needed = required_mb(signature) + dataset_mb(signature)
    check_fits(signature, None)
    check_fits(signature, needed + 1)
    with pytest.raises(Refused, match="gradient_accumulation_steps"):
        check_fits(signature, needed - 1)


def test_the_peak_is_that_since_it_was_made() -> None:
    peak = PeakMemory()
    before = peak.mb()
    block = np.ones(25_000_000)
    during = peak.mb()
    del block
    assert during > before + 150
    # The kernel counts pages by processor, and adds up now and then.
    assert peak.mb() > during - 10
    assert PeakMemory().mb() < during - 150
