"""A small CNN on the spectrograms of `spoken-digits` against plain Optuna and Keras.

Both sides compute the spectrograms once. The recordings reach the peer in a file: its script imports nothing of Fettle.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench import sides
from bench.claims import Claim, Comparison, Line, claimed
from bench.record import FETTLE, Records
from bench.service import service
from bench.table import Row
from bench.tasks import Options, Part, Task
from bench.works import WORKS, definition

WORK = WORKS["spoken-cnn"]
PLAIN = "plain"
FRESH, PEER = "spoken digits CNN fresh", "spoken digits CNN peer"


def write_recordings(path: Path) -> None:
    """The data set as a peer reads it: `x` [960, 6400] float32, `y` [960] int32 words, and the `sample_rate`."""
    import numpy as np

    from worker.training.data.spoken_digits import SAMPLE_RATE, spoken_digits

    recordings, words, _ = spoken_digits()
    np.savez(path, x=recordings, y=words, sample_rate=np.array(SAMPLE_RATE))


def _fresh(seed: int, trials: int) -> Mapping[str, Any]:
    with service() as running:
        running.wait_for_trainer()
        return {FRESH: sides.fettle(running, WORK, definition(WORK, "spoken", seed, trials))}


def _peer(seed: int, trials: int) -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "spoken-digits.npz"
        write_recordings(data)
        return {PEER: sides.peer(sys.executable, "plain_keras", WORK, trials, seed, "--data", str(data))}


def tasks(options: Options, _records: Records) -> Iterator[Task]:
    """Fettle, then plain; and again."""
    ours, theirs = (16, 4) if options.quick else (60, 16)
    for seed in range(options.repetitions):
        yield Task((FRESH,), FETTLE, seed, WORK.settings(trials=ours), partial(_fresh, seed, ours))
        yield Task((PEER,), PLAIN, seed, WORK.settings(trials=theirs), partial(_peer, seed, theirs))


CLAIMS = (Claim("spoken digits CNN, fresh service", FRESH, PEER, PLAIN, 3),)


def rows(records: Records) -> list[Row]:
    """The claim about the network on spectrograms."""
    return claimed(records, CLAIMS)


PART = Part(
    "spoken",
    tasks,
    rows,
    Comparison(f"{WORK.title}, {WORK.epochs} epochs", (Line(FETTLE, FRESH, FETTLE), Line(PLAIN, PEER, PLAIN))),
)
