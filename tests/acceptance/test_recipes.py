"""A recipe, run in a process that can't import Fettle, reaches the trial's metrics; one that would not is refused."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.domain.families import FAMILIES, InputKind
from app.domain.study import DatasetSpec, EarlyStopping, ModelSpec, Objective, TrainingSpec
from tests.acceptance.training_reference import stack_of
from tests.unit.conversation_channel import Supervisor
from worker.trainer.protocol import KeepModel, KeptModel
from worker.training.cache import ProgramCache
from worker.training.data import SOURCES
from worker.training.loop import train_stack
from worker.training.network_registry import BUILT_IN_NETWORKS

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # Keras' own, when it saves a model.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

ALONE = """
import os, runpy, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"app", "worker", "fettle", "optuna"}:
            raise ImportError(f"{name} is out of reach")

sys.meta_path.insert(0, Refuse())
for script in sys.argv[1:]:
    print("==", script)
    sys.argv = [script, "--model", script + ".keras"]
    if os.path.exists(script + ".npz"):
        sys.argv += ["--data", script + ".npz"]
    runpy.run_path(script, run_name="__main__")
"""

TIMEOUT_S = 600
EXACT = 2e-3
"""Relative: the same arithmetic in another order, over a few epochs at moderate learning rates."""


@dataclass(frozen=True)
class Case:
    """A trial, and how far the recipe's metric may be from its own where dropout draws other masks."""

    family: str
    dataset: DatasetSpec
    training: TrainingSpec
    objective: Objective
    values: dict[str, Any]
    absolute: float = 0.0
    layers: tuple[dict[str, Any], ...] = ()
    kind: InputKind | None = None

    @property
    def model(self) -> ModelSpec:
        """What the definition says of the model."""
        return ModelSpec(family=self.family, input=self.kind, layers=list(self.layers) or None)


ACCURACY = Objective(metric="val_accuracy", direction="maximize")
CASES = {
    "digits": Case(
        "mlp",
        DatasetSpec(name="digits", test_fraction=0.1, split_seed=3),
        TrainingSpec(epochs=6),
        ACCURACY,
        {
            "units": 32,
            "batch_norm": True,
            "l2": 1e-4,
            "label_smoothing": 0.1,
            "activation": "gelu",
            "optimizer": "adamw",
            "weight_decay": 0.01,
            "lr_schedule": "cosine",
            "warmup_epochs": 1.0,
            "learning_rate": 3e-3,
            "final_fraction": 0.1,
        },
    ),
    "diabetes": Case(
        "mlp",
        DatasetSpec(name="diabetes"),
        TrainingSpec(epochs=30, early_stopping=EarlyStopping(metric="val_loss", patience=2)),
        Objective(metric="val_loss"),
        {
            "units": 16,
            "hidden_layers": 1,
            "optimizer": "sgd",
            "momentum": 0.9,
            "nesterov": True,
            "l1": 1e-5,
            "global_clipnorm": 1.0,
            "learning_rate": 0.01,
            "lr_schedule": "step",
            "decay_epochs": 2.0,
        },
    ),
    "shapes": Case(
        "image-cnn",
        DatasetSpec(name="shapes", validation_fraction=0.5, test_fraction=0.4),
        TrainingSpec(epochs=2, select_epoch="last"),
        ACCURACY,
        {"filters": 2, "conv_layers": 2, "dense_units": 8, "batch_size": 64, "optimizer": "rmsprop"},
    ),
    "minmax": Case(
        "mlp",
        DatasetSpec(name="wine", test_fraction=0.1),
        TrainingSpec(epochs=4),
        ACCURACY,
        {"units": 8, "normalization": "minmax", "learning_rate": 0.01},
    ),
    "unscaled": Case(
        "mlp",
        DatasetSpec(name="diabetes"),
        TrainingSpec(epochs=4),
        Objective(metric="val_loss"),
        {"units": 8, "normalization": "none", "learning_rate": 0.01},
    ),
    "resnet": Case(
        "image-resnet",
        DatasetSpec(name="shapes", validation_fraction=0.4, test_fraction=0.5),
        TrainingSpec(epochs=2),
        Objective(metric="val_loss"),
        {"filters": 2, "stages": 2, "blocks": 1, "batch_size": 64, "l2": 1e-3, "optimizer": "sgd", "momentum": 0.5},
    ),
    "audio": Case(
        "audio-cnn",
        DatasetSpec(name="spoken-digits", validation_fraction=0.2, test_fraction=0.7),
        TrainingSpec(epochs=3),
        Objective(metric="val_loss"),
        {"filters": 2, "conv_layers": 2, "frame_length": 512, "frame_step": 512, "mel_bands": 16, "l1": 1e-4},
    ),
    "layers": Case(
        "keras-layers",
        DatasetSpec(name="digits", test_fraction=0.3),
        TrainingSpec(epochs=3),
        Objective(metric="val_loss"),
        {"units": 12, "l1": 1e-3, "l2": 1e-2, "lr_schedule": "polynomial", "label_smoothing": 0.1},
        layers=(
            {"layer": "Conv2D", "filters": 4, "kernel_size": 3, "kernel_initializer": "he_normal"},
            {"layer": "BatchNormalization", "momentum": 0.8},
            {"layer": "SeparableConv2D", "filters": 6, "kernel_size": [2, 3], "padding": "same", "activation": "elu"},
            {"layer": "DepthwiseConv2D", "kernel_size": 2, "depth_multiplier": 2},
            {"layer": "PReLU"},
            {"layer": "Flatten"},
            {"layer": "Dense", "units": {"hyperparameter": "units"}, "kernel_initializer": "orthogonal"},
            {"layer": "LayerNormalization"},
        ),
        kind="image",
    ),
    "recurrent": Case(
        "keras-layers",
        DatasetSpec(name="diabetes"),
        TrainingSpec(epochs=2),
        Objective(metric="val_loss"),
        {"l2": 1e-2, "batch_size": 64},
        layers=(
            {"layer": "Reshape", "target_shape": [5, 2]},
            {"layer": "Bidirectional", "of": {"layer": "LSTM", "units": 4, "return_sequences": True}},
            {"layer": "GRU", "units": 4, "return_sequences": True},
            {"layer": "SimpleRNN", "units": 4},
        ),
        kind="vector",
    ),
    "noise": Case(
        "keras-layers",
        DatasetSpec(name="breast-cancer"),
        TrainingSpec(epochs=8),
        ACCURACY,
        {"rate": 0.2, "learning_rate": 3e-3},
        absolute=0.06,
        layers=(
            {"layer": "Dense", "units": 16, "activation": "relu"},
            {"layer": "Dropout", "rate": {"hyperparameter": "rate"}},
            {"layer": "GaussianNoise", "stddev": 0.1},
        ),
        kind="vector",
    ),
    "dropout": Case(
        "mlp",
        DatasetSpec(name="breast-cancer"),
        TrainingSpec(epochs=8),
        ACCURACY,
        {"units": 32, "dropout": 0.3, "learning_rate": 3e-3},
        absolute=0.06,
    ),
}


def kept(case: Case, folder: Path) -> tuple[KeptModel, dict[str, float], int]:
    """The files of a trial that was trained so, its selected epoch's metrics, and that epoch."""
    path = str(folder / "model.keras")
    request = stack_of(
        case.family,
        case.dataset,
        [case.values],
        training=case.training,
        objectives=[case.objective],
        seeds=[7],
        model=case.model,
    )
    supervisor = Supervisor(keep=lambda results: [KeepModel(member=0, path=path)])
    train_stack(request, supervisor, ProgramCache(background=False), networks=BUILT_IN_NETWORKS)
    result = supervisor.results[0]
    epoch = -1 if case.training.instances > 1 else result.selected_epoch
    assert epoch is not None
    return supervisor.kept[0], result.metrics, epoch


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each case's trial, and what its recipe printed in one process for all."""
    found: dict[str, Any] = {}
    scripts = []
    for name, case in CASES.items():
        model, metrics, epoch = kept(case, tmp_path_factory.mktemp(name))
        assert (model.error, model.notes) == (None, [])
        assert "no_recipe" not in model.metadata, model.metadata["no_recipe"]
        (script,) = [file.path for file in model.files if file.name == "recipe.py"]
        scripts.append(script)
        if "--data" in Path(script).read_text():
            x, y = SOURCES[case.dataset.name].load()
            np.savez(script + ".npz", x=x, y=y)
        found[name] = {"metrics": metrics, "epoch": epoch, "text": Path(script).read_text(), "path": script}
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, *scripts],
        cwd=elsewhere,
        env={"PATH": "/usr/bin:/bin", "HOME": str(elsewhere), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for part, name in zip(done.stdout.split("== ")[1:], CASES, strict=True):
        found[name]["printed"] = part
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_recipe_reaches_the_trials_metrics_without_fettle(trained: dict[str, Any], name: str) -> None:
    case, mine = CASES[name], trained[name]
    last = mine["printed"].strip().splitlines()[-1]
    found = re.fullmatch(r"selected epoch (\d+): (.*)", last)
    assert found is not None, last
    metrics = {pair.partition("=")[0]: ast.literal_eval(pair.partition("=")[2]) for pair in found[2].split(", ")}
    if not case.absolute:
        assert int(found[1]) == mine["epoch"]
    compared = {
        "val_loss",
        "loss",
        *(n for n in mine["metrics"] if n.endswith(("accuracy", "mae")) and "test" not in n),
    }
    assert len(compared) == 4
    for metric in [case.objective.metric] if case.absolute else compared:
        expected = pytest.approx(mine["metrics"][metric], rel=0 if case.absolute else EXACT, abs=case.absolute or 1e-4)
        assert metrics[metric] == expected, metric


TEXTS = {"max_length": 8, "vocabulary_size": 50, "batch_size": 64}
FEW_TEXTS = DatasetSpec(name="docstrings", validation_fraction=0.9)
PLAIN = {"units": 4, "hidden_layers": 1}
# What a trial is of, and the words by which its recipe is refused.
REFUSED: dict[str, tuple[Case, str]] = {
    "text-cnn": (
        Case("text-cnn", FEW_TEXTS, TrainingSpec(epochs=1), ACCURACY, {**TEXTS, "embedding_dim": 2, "filters": 2}),
        "A recipe can't repeat the preparation of texts yet",
    ),
    "text-transformer": (
        Case("text-transformer", FEW_TEXTS, TrainingSpec(epochs=1), ACCURACY, {**TEXTS, "width": 4, "heads": 2}),
        "A recipe can't repeat the preparation of texts yet",
    ),
    "augmentation": (
        Case(
            "image-resnet",
            DatasetSpec(name="digits"),
            TrainingSpec(epochs=1),
            ACCURACY,
            {"filters": 1, "stages": 1, "blocks": 1, "augment_shift": 0.1},
        ),
        "augment_shift = 0.1",
    ),
    "noise on sounds": (
        Case(
            "audio-cnn",
            DatasetSpec(name="spoken-digits", validation_fraction=0.9),
            TrainingSpec(epochs=1),
            ACCURACY,
            {"filters": 1, "conv_layers": 1, "frame_length": 512, "frame_step": 512, "augment_noise": 0.5},
        ),
        "augment_noise = 0.5",
    ),
    "accumulation": (
        Case(
            "mlp",
            DatasetSpec(name="wine"),
            TrainingSpec(epochs=1),
            ACCURACY,
            {**PLAIN, "gradient_accumulation_steps": 2},
        ),
        "gradient_accumulation_steps = 2",
    ),
    "weights of classes": (
        Case("mlp", DatasetSpec(name="wine"), TrainingSpec(epochs=1, class_weights="balanced"), ACCURACY, PLAIN),
        "training.class_weights",
    ),
    "folds": (
        Case("mlp", DatasetSpec(name="wine"), TrainingSpec(epochs=1, folds=2), ACCURACY, PLAIN),
        "training.folds = 2",
    ),
    "repeats": (
        Case("mlp", DatasetSpec(name="wine"), TrainingSpec(epochs=1, repeats=2), ACCURACY, PLAIN),
        "training.repeats = 2",
    ),
    "half precision": (
        Case("mlp", DatasetSpec(name="wine"), TrainingSpec(epochs=1, precision="mixed_bfloat16"), ACCURACY, PLAIN),
        "training.precision",
    ),
    "groups": (
        Case(
            "audio-cnn",
            DatasetSpec(name="spoken-digits", grouped=True, validation_fraction=0.5),
            TrainingSpec(epochs=1),
            ACCURACY,
            {"filters": 1, "conv_layers": 1, "frame_length": 512, "frame_step": 512},
        ),
        "dataset.grouped",
    ),
}


def test_every_family_that_is_trained_here_has_a_recipe_or_words_for_its_lack() -> None:
    trained_here = {name for name, family in FAMILIES.items() if family.needs_dataset}
    assert {case.family for case in CASES.values()} | {"text-cnn", "text-transformer"} == trained_here


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_script_would_leave_out_is_refused_in_words(name: str, tmp_path: Path) -> None:
    case, words = REFUSED[name]
    model, _, _ = kept(case, tmp_path)
    assert model.notes == []
    assert "recipe.py" not in [file.name for file in model.files]
    assert words in model.metadata["no_recipe"]


def test_the_model_that_a_recipe_saves_takes_raw_features(trained: dict[str, Any]) -> None:
    import keras
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    model = keras.saving.load_model(trained["digits"]["path"] + ".keras")
    predicted = model.predict(images.astype("float32"), verbose=0)
    assert (predicted.argmax(1) == labels).mean() > 0.9


def test_a_recipe_reads_as_plain_keras(trained: dict[str, Any]) -> None:
    text = trained["digits"]["text"]
    assert "keras.layers.Dense(units=32, kernel_regularizer=keras.regularizers.L1L2(l1=0.0, l2=0.0001))(x2)" in text
    assert "keras.optimizers.AdamW(learning_rate, weight_decay=0.01)" in text
    assert max(map(len, text.splitlines())) <= 120
    for mine in trained.values():
        imported = {
            (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).partition(".")[0]
            for node in ast.walk(ast.parse(mine["text"]))
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        assert imported <= {"argparse", "math", "keras", "numpy", "sklearn", "collections", "functools"}
