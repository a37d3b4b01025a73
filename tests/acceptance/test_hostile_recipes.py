"""Names that a user chose stay text in the script that a trial leaves: none becomes code, or ends a comment."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.data.assembly import read_dataset
from app.data.limits import DataLimits
from app.data.normal import write
from app.data.reading import Reading
from app.domain.study import DatasetSpec, Objective, TrainingSpec
from tests.acceptance.training_reference import stack_of
from tests.support.data_files import npz
from tests.unit.conversation_channel import Supervisor
from worker.trainer.protocol import KeepModel
from worker.training.cache import ProgramCache
from worker.training.loop import train_stack
from worker.training.network_registry import BUILT_IN_NETWORKS
from worker.training.recipe import script

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.slow,
    # Keras' own, when it saves a model.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

CLASSES = [
    '"""\nimport os; os.system("touch OWNED")\n"""',
    "'''\nraise SystemExit('OWNED')\n'''",
    "'] + [open('OWNED', 'w')] + ['",
    "\\\nOWNED",
    "\u2028OWNED = 1",
    "# -*- coding: rot13 -*-",
    "{OWNED}",
    "@FILE @DATA @STRATA @ORDER",
    "%s\r\nOWNED()",
    "\x1b[2J\x07\x08",
]


def test_classes_that_look_like_code_are_strings_in_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Trials on uploads have no recipe so far; it would be this one.
    monkeypatch.setattr(script, "DATASET", script.DATASET | {"id"})
    labels = np.array([CLASSES[i % len(CLASSES)] for i in range(120)])
    x = np.random.default_rng(0).normal(size=(120, 4))
    source, kept, model = tmp_path / "source.npz", tmp_path / "kept.npz", tmp_path / "model.keras"
    source.write_bytes(npz(x=x, y=labels))
    reading = Reading(format="npz")
    normal = read_dataset(source, reading, DataLimits(), name="hostile", description="", origin="upload")
    write(normal, kept)
    request = stack_of(
        "mlp",
        DatasetSpec(name="hostile", id="ds_" + "0" * 20, validation_fraction=0.5),
        [{"units": 4, "hidden_layers": 1}],
        training=TrainingSpec(epochs=1),
        objectives=[Objective(metric="val_loss")],
        data=str(kept),
    )
    supervisor = Supervisor(keep=lambda results: [KeepModel(member=0, path=str(model))])
    train_stack(request, supervisor, ProgramCache(background=False), networks=BUILT_IN_NETWORKS)
    files = {file.name: Path(file.path) for file in supervisor.kept[0].files}
    text = files["recipe.py"].read_text("utf-8")
    _check(ast.parse(text))
    done = subprocess.run(
        [sys.executable, "-I", str(files["recipe.py"]), "--help"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not [path.name for path in tmp_path.rglob("OWNED*")]


def _check(tree: ast.Module) -> None:
    """The classes are one list of the very strings, and the names of the script are none of theirs."""
    named: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named[node.targets[0].id] = node.value
    assert sorted(ast.literal_eval(named["CLASSES"])) == sorted(CLASSES)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not used & {"OWNED", "os", "open"}
    imported = {
        alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    assert imported <= {"argparse", "math", "keras", "numpy"}
