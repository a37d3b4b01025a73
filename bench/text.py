"""A small transformer on docstrings against plain Optuna and Keras, whose attention is Keras' own layer.

Neither side makes the data while the clock runs: Fettle's trainer has them from a study before, of another network, and
the peer reads raw texts out of a file and cuts them into tokens first.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import sides
from bench.claims import Claim, Comparison, Line, claimed
from bench.record import FETTLE, Records
from bench.service import service
from bench.table import Row
from bench.tasks import Options, Part, Task
from bench.works import SPLIT_SEED, VALIDATION_FRACTION, WORKS, definition

WORK = WORKS["docstrings-transformer"]
PLAIN = "plain"
FRESH, WARM, PEER = "text fresh", "text warm", "text peer"
WARM_SEED = 100
DATA_ONLY = {"max_length": 4, "vocabulary_size": 4, "embedding_dim": 1, "filters": 1}
"""A network that trains in no time: its study makes the data set."""


def written(folder: Path) -> Path:
    """A file in `folder` with the raw texts as Fettle splits them: `x`, `x_val` of str, and `y`, `y_val` int32."""
    from sklearn.model_selection import train_test_split

    from worker.training.data.docstrings import docstrings

    texts, labels = docstrings()
    x, x_val, y, y_val = train_test_split(
        texts.astype(str), labels, test_size=VALIDATION_FRACTION, random_state=SPLIT_SEED, stratify=labels
    )
    path = folder / "docstrings.npz"
    np.savez_compressed(path, x=x, y=y, x_val=x_val, y_val=y_val)
    return path


def _fettle(seed: int, trials: int) -> Mapping[str, Any]:
    with service() as running:
        running.wait_for_trainer()
        made = definition(WORK, "data", seed, 1) | {"model": {"family": "text-cnn"}, "hyperparameters": DATA_ONLY}
        running.run(made | {"training": {"epochs": 1}})
        fresh = sides.fettle(running, WORK, definition(WORK, "fresh", seed, trials))
        warm = sides.fettle(running, WORK, definition(WORK, "warm", seed + WARM_SEED, trials))
    return {FRESH: fresh, WARM: warm}


def _plain(seed: int, trials: int) -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        data = str(written(Path(folder)))
        return {PEER: sides.peer(sys.executable, "plain_keras", WORK, trials, seed, "--data", data)}


def tasks(options: Options, _records: Records) -> Iterator[Task]:
    """Fettle fresh and warm, then plain; and again."""
    ours, theirs = (12, 3) if options.quick else (60, 12)
    for seed in range(options.repetitions):
        yield Task((FRESH, WARM), FETTLE, seed, WORK.settings(trials=ours), partial(_fettle, seed, ours))
        yield Task((PEER,), PLAIN, seed, WORK.settings(trials=theirs), partial(_plain, seed, theirs))


CLAIMS = (
    Claim("docstrings small transformer, fresh service", FRESH, PEER, PLAIN, 3),
    Claim("the same again, warm", WARM, PEER, PLAIN, None),
)


def rows(records: Records) -> list[Row]:
    """The claims about the transformer."""
    return claimed(records, CLAIMS)


PART = Part(
    "text",
    tasks,
    rows,
    Comparison(
        f"{WORK.title}, {WORK.epochs} epochs",
        (
            Line("Fettle, fresh service", FRESH, FETTLE),
            Line("Fettle, the same again, warm", WARM, FETTLE),
            Line("plain Optuna + Keras", PEER, PLAIN),
        ),
    ),
)
