"""Studies of small networks, for tests whose trials leave a model; one trainer with TensorFlow at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import select

from app.store.engine import Database
from app.store.tables import Artifact
from tests.store.conftest import Bench, bench_maker


def network_study(database: Database, **changes: Any) -> Bench:
    """One trial of a small network on a small table; `changes` replace whole sections."""
    body: dict[str, Any] = {
        "model": {"family": "mlp"},
        "dataset": {"name": "wine"},
        "hyperparameters": {
            "units": 8,
            "batch_size": 64,
            "learning_rate": {"type": "float", "low": 0.01, "high": 0.02},
        },
        "objectives": [{"metric": "val_loss"}],
        "training": {"epochs": 3},
        "sampler": {"name": "random"},
        "budget": {"trials": 1},
    }
    return bench_maker(database)(**(body | changes))


def artifacts(bench: Bench) -> list[tuple[Any, ...]]:
    """What the study's trials point to: each file with its attempt's path and its size."""
    with bench.database.read() as session:
        ids = [t.id for t in bench.trials()]
        query = select(Artifact).where(Artifact.trial_id.in_(ids)).order_by(Artifact.trial_id, Artifact.name)
        return [(a.trial_id, a.name, a.path, a.size_bytes) for a in session.scalars(query)]


def files_below(folder: Path, bench: Bench) -> dict[str, int]:
    """The study's files at an artifact location in a folder, by path, with their sizes."""
    found = (folder / bench.public_id).rglob("*")
    return {str(path.relative_to(folder)): path.stat().st_size for path in found if path.is_file()}
