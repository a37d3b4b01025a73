"""What is written beside a kept model: learning curves, how it does on the validation part, a recipe, event files.

None of it is worth losing a model for: what can't be written is a line in the trial's log.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.families import Scalar
from worker.trainer.protocol import KeepModel, KeptFile, Member, TrainStack
from worker.training import assessment, event_file
from worker.training.program import Program
from worker.training.recipe import NoRecipe, recipe
from worker.training.rows import Weights

LEARNING_CURVES = "learning_curves.csv"
RECIPE = "recipe.py"
NO_RECIPE = "no_recipe"
"""In a recipe's place: the key of a model's details that says why there is none."""


@dataclass(frozen=True, slots=True)
class Run:
    """How a kept model came to be: its stack, its member, all its hyperparameters, and the metrics of its epochs.

    `selected_epoch` counts within the fold or repeat that the model is of, which began at `first_epoch` of `history`.
    """

    request: TrainStack
    member: Member
    hyperparameters: Mapping[str, Scalar]
    selected_epoch: int
    history: Sequence[Mapping[str, float]]
    first_epoch: int = 0


def write_beside(
    program: Program, run: Run, exported: Any, weights: Weights, model: KeepModel, metadata: dict[str, Any]
) -> tuple[list[KeptFile], list[str]]:
    """Write the files beside the model, and the lines about those that could not be written.

    `exported` is the model that was written, `weights` are the member's. A recipe that can't be given says why in
    `metadata`.
    """
    files: list[KeptFile] = []
    notes: list[str] = []

    def add(name: str, media_type: str, write: Callable[[Path], dict[str, Any] | None]) -> None:
        path = Path(f"{model.path}.{name}")
        try:
            details = write(path)
        except NoRecipe as reason:
            metadata[NO_RECIPE] = str(reason)
        except Exception as error:  # noqa: BLE001 - told in the trial's log; the model counts without it
            path.unlink(missing_ok=True)
            notes.append(f"ARTIFACT_NOT_WRITTEN: {name}: {type(error).__name__}: {error}")
        else:
            size = path.stat().st_size
            files.append(
                KeptFile(name=name, path=str(path), media_type=media_type, size_bytes=size, details=details or {})
            )

    add(LEARNING_CURVES, "text/csv", lambda path: _write_curves(path, run))
    name = assessment.name_of(program.split)
    if name is not None:
        add(name, "application/json", lambda path: _write_json(path, _assessed(program, run, weights)))
    add(RECIPE, "text/x-python", lambda path: _write_text(path, recipe(program, run, exported)))
    if "tensorboard" in model.extras:
        add(event_file.NAME, "application/octet-stream", lambda path: event_file.write(path, run.history))
    return files, notes


def _assessed(program: Program, run: Run, weights: Weights) -> dict[str, Any]:
    return assessment.assess(program, run.hyperparameters, weights)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write_text(path, json.dumps(content, allow_nan=False))


def _write_curves(path: Path, run: Run) -> dict[str, Any]:
    """The metrics of every epoch, a row each; the details say which epoch the model is of."""
    names = list(run.history[0]) if run.history else []
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["epoch", *names])
        rows.writerows([epoch, *(metrics.get(name) for name in names)] for epoch, metrics in enumerate(run.history))
    return {"selected_epoch": run.first_epoch + run.selected_epoch}
