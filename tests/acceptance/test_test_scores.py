"""`test_loss` and `val_loss` are one quantity: the same on the same rows, with penalties and smoothing, of logits."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json

import keras
import numpy as np
import pytest

from app.domain.study import DatasetSpec, ModelSpec, Objective, TrainingSpec
from tests.acceptance.training_reference import CNN, FEW_DIGITS, MLP, WINE, program_of, stack_of, trained
from tests.acceptance.training_reference import start as start_member
from tests.unit.conversation_channel import Supervisor
from worker.trainer.protocol import KeepModel, TrainStack
from worker.training.assessment import assess
from worker.training.cache import ProgramCache
from worker.training.data import Part, load_split
from worker.training.export import test_metrics as measured_on_test
from worker.training.loop import train_stack
from worker.training.network_registry import BUILT_IN_NETWORKS
from worker.training.program import Program
from worker.training.slots import Slots

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

PENALISED = {"l1": 1e-2, "l2": 1e-2, "label_smoothing": 0.2}
DIABETES = DatasetSpec(name="diabetes", validation_fraction=0.3)
LISTED = ModelSpec.model_validate(
    {
        "family": "keras-layers",
        "input": "vector",
        "layers": [{"layer": "Dense", "units": 8, "activation": "relu"}, {"layer": "BatchNormalization"}],
    }
)
TEXT = {"max_length": 12, "vocabulary_size": 100, "tokens": "words", "batch_size": 64}
DOCSTRINGS = DatasetSpec(name="docstrings", validation_fraction=0.9)
SPOKEN = DatasetSpec(name="spoken-digits", validation_fraction=0.9)
COARSE = {"frame_length": 512, "frame_step": 512, "mel_bands": 8, "filters": 2, "conv_layers": 1}
CASES: dict[str, tuple[str, DatasetSpec, dict[str, Any], dict[str, Any]]] = {
    "mlp": ("mlp", WINE, MLP, {}),
    "regression": ("mlp", DIABETES, MLP, {}),
    "activations": ("mlp", WINE, {**MLP, "activation": "gelu"}, {"choices": {"activation": ["relu", "gelu"]}}),
    "image-cnn": ("image-cnn", FEW_DIGITS, CNN, {}),
    "image-resnet": ("image-resnet", FEW_DIGITS, {"filters": 2, "stages": 1, "blocks": 1}, {}),
    "text-cnn": ("text-cnn", DOCSTRINGS, {**TEXT, "embedding_dim": 4, "filters": 4}, {}),
    "text-transformer": ("text-transformer", DOCSTRINGS, {**TEXT, "width": 8, "heads": 2}, {}),
    "audio-cnn": ("audio-cnn", SPOKEN, COARSE, {}),
    "keras-layers": ("keras-layers", WINE, {"batch_size": 64}, {"model": LISTED}),
    "half precision": ("mlp", WINE, MLP, {"training": TrainingSpec(epochs=3, precision="mixed_float16")}),
}


def with_test_part(program: Program, part: Any) -> None:
    """Let the program's test part be these raw rows and targets."""
    program.split = replace(program.split, test=part)


def raw_validation(request: TrainStack, program: Program) -> Part:
    """The raw samples of the validation part: the test part of a split that has the two exchanged."""
    assert request.dataset is not None
    fraction = request.dataset.validation_fraction
    swapped = request.dataset.model_copy(update={"validation_fraction": 0.05, "test_fraction": fraction})
    signature = program.signature
    test = load_split(swapped, signature.input_kind, signature.hyperparameters, None).test
    return Part(test.x, test.y)


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_test_loss_of_validation_rows_is_their_validation_loss(name: str, xla: bool) -> None:
    family, dataset, values, fields = CASES[name]
    classify = dataset.name != "diabetes"
    values = {**values, **(PENALISED if classify else {"l1": 1e-2, "l2": 1e-2})}
    if xla and family not in ("mlp", "keras-layers"):
        pytest.skip("the same code, minutes of compiling")
    request = stack_of(family, dataset, [values, {**values, "l2": 0.0}], **fields)
    program = program_of(request, xla=xla)
    slots = Slots(program)
    for slot in range(2):
        start_member(slots, slot, request, slot)
    told = trained(slots, range(2))
    with_test_part(program, raw_validation(request, program))
    for slot in range(2):
        slots.mark_best(slot)
        all_values = program.signature.declaration.defaults() | request.members[slot].hyperparameters
        found = measured_on_test(program, all_values, slots.best(slot))
        score = "accuracy" if classify else "mae"
        assert found["test_loss"] == pytest.approx(told[slot].val_loss, rel=2e-5)
        assert found[f"test_{score}"] == pytest.approx(told[slot].val_score, rel=2e-5)
        assessed = assess(program, all_values, slots.best(slot))
        assert assessed[score] == pytest.approx(told[slot].val_score, rel=2e-5)
        if not classify:
            assert found["test_mse"] == pytest.approx(assessed["rmse"] ** 2, rel=2e-5)
            assert found["test_loss"] > found["test_mse"] / program.split.targets.deviation**2
    assert told[0].val_loss != pytest.approx(told[1].val_loss, rel=1e-3)  # the penalty counts


@pytest.mark.parametrize("extent", [46.7, 230_897.0])
def test_a_sure_and_wrong_network_has_the_loss_that_its_logits_say(extent: float) -> None:
    request = stack_of("mlp", WINE, [{**MLP, "hidden_layers": 1}])
    program = program_of(request)
    values = program.signature.declaration.defaults() | request.members[0].hyperparameters
    # The output layer's bias alone tells classes apart: the first one is certain.
    weights = np.zeros(program.architecture.weight_count, np.float32)
    weights[-program.split.outputs] = extent
    raw = raw_validation(request, program)
    others = raw.y > 0
    with_test_part(program, Part(raw.x[others], raw.y[others]))
    found = measured_on_test(program, values, (weights, np.zeros(0, np.float32)))
    assert found["test_loss"] == pytest.approx(extent, rel=1e-6)
    assert found["test_accuracy"] == 0.0
    smoothed = measured_on_test(program, {**values, "label_smoothing": 0.3}, (weights, np.zeros(0, np.float32)))
    assert smoothed["test_loss"] == pytest.approx(extent * (0.7 + 0.3 * 2 / 3), rel=1e-6)


@pytest.mark.parametrize("task", ["wine", "diabetes"])
def test_a_folded_trials_test_loss_is_that_of_its_model_by_keras(tmp_path: Path, task: str) -> None:
    dataset = DatasetSpec(name=task, test_fraction=0.2)
    smoothing = {"label_smoothing": 0.2} if task == "wine" else {}
    path = str(tmp_path / "model.keras")
    request = stack_of(
        "mlp",
        dataset,
        [{**MLP, "l2": 1e-2, **smoothing}],
        training=TrainingSpec(epochs=2, folds=2, repeats=2),
        objectives=[Objective(metric="val_loss")],
    )
    supervisor = Supervisor(keep=lambda results: [KeepModel(member=0, path=path)])
    train_stack(request, supervisor, ProgramCache(background=False), networks=BUILT_IN_NETWORKS)
    kept = supervisor.kept[0]
    split = load_split(dataset, "vector", {})
    model = keras.saving.load_model(path)
    outputs = model(split.test.x).numpy().astype(np.float64)
    kernels = [v.numpy() for v in model.trainable_variables if v.name == "kernel"]
    penalty = 1e-2 * sum(float(np.square(kernel.astype(np.float64)).sum()) for kernel in kernels)
    if task == "wine":
        label = np.eye(3)[split.test.y] * 0.8 + 0.2 / 3
        expected = float(-(label * np.log(outputs)).sum(1).mean()) + penalty
    else:
        error = outputs[:, 0] - split.test.y
        assert kept.test_metrics["test_mse"] == pytest.approx(np.square(error).mean(), rel=1e-4)
        layer = model.layers[-1]
        expected = float(np.square(error / float(layer.scale)).mean()) + penalty
    assert kept.test_metrics["test_loss"] == pytest.approx(expected, rel=1e-4)
    assert json.dumps(kept.test_metrics)
