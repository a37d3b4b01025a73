"""Programs of every family that hold far more than 256 MB train to their end, with a penalty and without.

TensorFlow rewrites graphs by the memory that it expects them to hold, and takes 256 MB for a CPU's: what is right for
a small program is not proved for a large one. Few samples and few steps are enough: the sizes are in the graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from app.domain.registry import BUILT_IN
from app.domain.study import DatasetSpec, ModelSpec, TrainingSpec
from tests.acceptance.training_reference import program_of, stack_of, start, trained
from worker.trainer.protocol import TrainStack
from worker.training.memory import required_mb
from worker.training.slots import Slots

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

EPOCHS = 3
VALIDATION = 0.1
"""The share of the samples that validates."""
LARGE_MB = 512
"""What the members of a program hold at least: twice TensorFlow's 256 MB."""
LANES = 2
PENALTY = {"l1": 1e-6, "l2": 1e-4}


@dataclass(frozen=True)
class Size:
    """What makes a program large, and the share of the samples that it trains on: for about two steps an epoch."""

    share: float
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A network on a data set, for one member a call and for eight; `xla` are those that XLA compiles in seconds."""

    family: str
    dataset: str
    alone: Size
    company: Size
    xla: tuple[int, ...] = ()
    model: ModelSpec | None = None

    def request(self, members: int, penalty: Mapping[str, float]) -> TrainStack:
        """A stack of as many members with the same penalty."""
        size = self.alone if members == 1 else self.company
        dataset = DatasetSpec(
            name=self.dataset, validation_fraction=VALIDATION, test_fraction=round(1 - VALIDATION - size.share, 3)
        )
        training, values = TrainingSpec(epochs=EPOCHS), {**size.values, **penalty}
        return stack_of(self.family, dataset, [values] * members, training=training, model=self.model)


def layers(kind: str, *listed: dict[str, Any]) -> ModelSpec:
    """A list of layers, for inputs of a kind, as a model."""
    return ModelSpec.model_validate({"family": "keras-layers", "input": kind, "layers": listed})


CONVOLUTION = {"layer": "Conv2D", "filters": 32, "kernel_size": 3, "padding": "same", "activation": "relu"}
DENSE = {"layer": "Dense", "units": 1024, "activation": "relu", "repeat": 7}

CASES = {
    "mlp": Case(
        "mlp",
        "shapes",
        Size(0.69, {"units": 1024, "hidden_layers": 7, "batch_size": 4096}),
        Size(0.2, {"units": 512, "hidden_layers": 8, "batch_size": 640}),
        xla=(1,),
    ),
    "image-cnn": Case(
        "image-cnn",
        "shapes",
        Size(0.12, {"filters": 64, "batch_size": 384}),
        Size(0.03, {"filters": 32, "batch_size": 96}),
    ),
    "image-resnet": Case(
        "image-resnet", "shapes", Size(0.08, {"batch_size": 256}), Size(0.01, {"batch_size": 32}), xla=(1,)
    ),
    "text-cnn": Case(
        "text-cnn",
        "docstrings",
        Size(0.7, {"filters": 256, "batch_size": 2048}),
        Size(0.14, {"filters": 256, "batch_size": 224}),
        xla=(1, 8),
    ),
    "text-transformer": Case(
        "text-transformer", "docstrings", Size(0.5, {"batch_size": 1024}), Size(0.08, {"batch_size": 128}), xla=(1,)
    ),
    "audio-cnn": Case(
        "audio-cnn",
        "spoken-digits",
        Size(0.4, {"filters": 16, "frame_step": 32, "batch_size": 192}),
        Size(0.07, {"filters": 8, "frame_step": 32, "batch_size": 32}),
    ),
    "keras-layers of images": Case(
        "keras-layers",
        "shapes",
        Size(0.25, {"batch_size": 768}),
        Size(0.03, {"batch_size": 96}),
        model=layers("image", CONVOLUTION, CONVOLUTION, {"layer": "MaxPooling2D"}, {"layer": "Flatten"}),
    ),
    "keras-layers of vectors": Case(
        "keras-layers",
        "shapes",
        Size(0.69, {"batch_size": 4096}),
        Size(0.03, {"batch_size": 96}),
        xla=(1,),
        model=layers("vector", DENSE),
    ),
}
SIZES = [(name, members) for name in CASES for members in (1, 8)]


def test_every_family_that_trains_on_data_has_a_case() -> None:
    trained_on_data = {family.name for family in BUILT_IN if family.trained_here and family.needs_dataset}
    assert {case.family for case in CASES.values()} == trained_on_data


@pytest.mark.parametrize(("name", "members"), SIZES, ids=[f"{name}-{members}" for name, members in SIZES])
def test_a_large_program_trains_with_a_penalty_and_without_in_each_of_its_variants(name: str, members: int) -> None:
    """Those with one train beside those without: two calls of one program at a time, as in a trainer's lanes."""
    case = CASES[name]
    free, penalised = (case.request(members, penalty) for penalty in ({}, PENALTY))
    told = {}
    for xla in [False, *([True] if members in case.xla else [])]:
        program = program_of(free, members, xla=xla)
        assert members * required_mb(program.signature) > LARGE_MB
        with ThreadPoolExecutor(LANES) as lanes:
            slots = Slots(program, lanes)
            for slot in range(members):
                start(slots, slot, free, slot)
                start(slots, members + slot, penalised, slot)
            told[xla] = [trained(slots, range(LANES * members)) for _ in range(EPOCHS)]
        for slot in range(members):
            losses = [epoch[slot].loss for epoch in told[xla]]
            assert np.isfinite([dataclasses.astuple(epoch[slot]) for epoch in told[xla]]).all()
            assert losses[-1] < losses[0]
            # The same weights and samples: what differs is the penalty.
            assert told[xla][0][members + slot].loss > losses[0]
    if True in told:
        for plain, compiled in zip(told[False], told[True], strict=True):
            for slot, metrics in plain.items():
                assert compiled[slot].loss == pytest.approx(metrics.loss, rel=0.02)
