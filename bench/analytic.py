"""Studies of analytic functions with several trials in flight: Fettle's sampling beside plain Optuna's.

The functions are of the BBOB suite (Hansen et al., "Real-Parameter Black-Box Optimization Benchmarking", 2009) as
`coco-experiment` computes them, in five dimensions, searched in [-5, 5]⁵; a run's seed picks the function's instance
(where its optimum lies, how it is turned) and seeds the sampler.

Parallel trials are simulated: all take equally long, so that they finish in the order in which they started, and each
that finishes is replaced by the next at once. That is what `study.optimize(n_jobs=16)` does with trials of equal
length, without its races, and `Study.ask` and `Study.tell` are what `optimize` itself calls. Nothing waits, so that 16
trials in flight take no longer than one.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from app.domain.study import StudyDefinition
from app.domain.trial import Outcome, Proposal, TrialState
from app.store import leases, lifecycle, recording
from app.store.engine import Database
from app.store.migrate import migrate
from app.tuning.view import StudyView

DIMENSIONS = 5
FUNCTIONS = {
    1: "sphere",
    2: "ellipsoid, separable",
    3: "Rastrigin, separable",
    6: "attractive sector",
    8: "Rosenbrock",
    10: "ellipsoid, rotated",
    12: "bent cigar",
    13: "sharp ridge",
    15: "Rastrigin, rotated",
    17: "Schaffer F7",
    20: "Schwefel",
    21: "Gallagher, 101 peaks",
}
"""Two or three of each of the suite's five classes, by number."""
LEAST = 1e-8
"""Regret below which the suite calls a function solved; smaller ones count as this."""
LEASE_S = 3600.0

Point = list[float]


class Problem:
    """A function whose smallest value is known."""

    def __init__(self, function: int, seed: int) -> None:
        from cocoex import BareProblem

        self._function = BareProblem("bbob", function, DIMENSIONS, seed + 1)
        self._least = self._function.best_value()

    def regret(self, point: Point) -> float:
        """How far the value at a point lies above the smallest one."""
        return max(float(self._function(point)) - self._least, LEAST)


class Searcher(Protocol):
    """Something that proposes points and learns their values."""

    def ask(self, count: int) -> list[Any]:
        """The next proposals."""

    def point(self, asked: Any) -> Point:
        """Where a proposal lies."""

    def tell(self, asked: Any, value: float) -> None:
        """The value of a proposal."""


def search(problem: Problem, searcher: Searcher, trials: int, in_flight: int, together: int = 1) -> list[float]:
    """The least regret after each finished trial: as many numbers as trials.

    `in_flight` trials run at once. `together` of them finish, and are replaced, at a time.
    """
    running = deque(searcher.ask(min(in_flight, trials)))
    asked, curve, least = len(running), [], float("inf")
    while running:
        for trial in [running.popleft() for _ in range(min(together, len(running)))]:
            value = problem.regret(searcher.point(trial))
            searcher.tell(trial, value)
            least = min(least, value)
            curve.append(least)
        count = min(in_flight - len(running), trials - asked)
        running.extend(searcher.ask(count) if count else [])
        asked += count
    return curve


class Optuna:
    """Plain Optuna in memory, with the sampler as a study of the service has it."""

    def __init__(self, sampler: str, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        made = {
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True),
            "random": lambda: optuna.samplers.RandomSampler(seed=seed),
            "nsgaii": lambda: optuna.samplers.NSGAIISampler(seed=seed),
        }
        self._study = optuna.create_study(sampler=made[sampler]())

    def ask(self, count: int) -> list[Any]:
        trials = [self._study.ask() for _ in range(count)]
        for trial in trials:
            self.point(trial)
        return trials

    def point(self, asked: Any) -> Point:
        return [asked.suggest_float(f"x{i}", -5.0, 5.0) for i in range(DIMENSIONS)]

    def tell(self, asked: Any, value: float) -> None:
        self._study.tell(asked, value)


class Fettle:
    """A study of the service in a database, as a worker samples it: reserve, sync, ask and start, later finish."""

    def __init__(self, database: Database, name: str, sampler: str, seed: int, trials: int) -> None:
        definition = StudyDefinition.model_validate(
            {
                "name": name,
                "model": {"family": "external"},
                "hyperparameters": {f"x{i}": {"type": "float", "low": -5.0, "high": 5.0} for i in range(DIMENSIONS)},
                "objectives": [{"metric": "value"}],
                "sampler": {"name": sampler, "options": {"seed": seed}},
                "budget": {"trials": trials},
            }
        )
        self._database = database
        with database.write() as session:
            study = lifecycle.create_study(session, definition, project=name, created_by=None, sample_limit=None)
            self._study_id = study.id
        self._view = StudyView(database, self._study_id, definition)

    def ask(self, count: int) -> list[Proposal]:
        with self._database.write() as session:
            reservations = leases.reserve(session, self._study_id, "bench", count, LEASE_S)
        self._view.sync()
        proposals = self._view.ask(reservations)
        with self._database.write() as session:
            leases.start(session, self._study_id, proposals, "bench", "cpu", LEASE_S)
        return proposals

    def point(self, asked: Proposal) -> Point:
        return [float(asked.sampled[f"x{i}"]) for i in range(DIMENSIONS)]

    def tell(self, asked: Proposal, value: float) -> None:
        lease = asked.reservation
        kept = self._view.system_attributes(lease.trial_id)
        outcome = Outcome(
            lease.trial_id, lease.token, TrialState.COMPLETE, values=(value,), violations=(), system_attributes=kept
        )
        with self._database.write() as session:
            recording.finish(session, self._study_id, [outcome], [], LEASE_S)
        self._view.forget(lease.trial_id)


@contextmanager
def scratch() -> Iterator[Database]:
    """An SQLite database for one process' runs."""
    with TemporaryDirectory(prefix="fettle-bench-") as folder:
        database = Database(f"sqlite:///{Path(folder) / 'quality.db'}")
        migrate(database)
        try:
            yield database
        finally:
            database.dispose()
