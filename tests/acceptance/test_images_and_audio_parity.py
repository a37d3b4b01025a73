"""Residual and audio networks: a program's weights, losses and metrics are those of plain `keras.Model.fit`."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from app.domain.study import DatasetSpec
from tests.acceptance.test_training_parity import assert_same
from tests.acceptance.training_reference import FEW_DIGITS, program_of, stack_of, trained_by_keras, trained_by_program
from tests.support.effort import with_smoke

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(300)]

FEW_RECORDINGS = DatasetSpec(name="spoken-digits", validation_fraction=0.2, test_fraction=0.7)
RESNET = {"filters": 2, "batch_size": 64, "optimizer": "sgd", "momentum": 0.9}
AUDIO = {"filters": 2, "dense_units": 8, "conv_layers": 2, "batch_size": 64, "optimizer": "adam", "mel_bands": 8}

# Between them every stride, kernel and head, with batch normalisation and without; sizes that strides don't divide.
CASES = {
    "resnet-average": (
        "image-resnet",
        FEW_DIGITS,
        {**RESNET, "stages": 2, "blocks": 2, "batch_norm": True},
        [{"l2": 1e-3}, {"activation": "tanh", "learning_rate": 3e-4}, {"label_smoothing": 0.1}],
    ),
    "resnet-max-even-kernel-stride-3": (
        "image-resnet",
        FEW_DIGITS,
        {**RESNET, "stages": 3, "kernel_size": 2, "stride": 3, "head": "max"},
        [{"activation": "elu"}, {"activation": "tanh", "l1": 1e-4}, {"learning_rate": 3e-4}],
    ),
    "resnet-flatten-large-kernel": (
        "image-resnet",
        FEW_DIGITS,
        {**RESNET, "stages": 2, "kernel_size": 5, "stride": 2, "head": "flatten"},
        [{"momentum": 0.0}, {"lr_schedule": "cosine"}, {"activation": "swish"}],
    ),
    "audio": (
        "audio-cnn",
        FEW_RECORDINGS,
        {**AUDIO, "frame_length": 400, "frame_step": 301},
        [{"l2": 1e-3}, {"activation": "tanh", "learning_rate": 3e-4}, {"lr_schedule": "step"}],
    ),
}


@pytest.mark.parametrize("name", with_smoke(CASES, "audio"))
def test_a_program_trains_as_keras_fit_does_in_a_stack_alone_and_under_xla(name: str) -> None:
    family, dataset, shared, own = CASES[name]
    request = stack_of(family, dataset, [{**shared, **values} for values in own])
    program = program_of(request)
    references = [trained_by_keras(request, member, program) for member in range(len(own))]
    for variant in (program, program_of(request, 1), program_of(request, xla=True)):
        for actual, expected in zip(trained_by_program(request, variant), references, strict=True):
            assert_same(actual, expected)
