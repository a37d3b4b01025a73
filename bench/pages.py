"""Pages of a study with 100,000 trials over HTTP: any sort, any filter, from the beginning, the middle and the end.

    python -m bench.pages [TRIALS] [REPETITIONS]

Every page is checked against a sort of all trials in Python. The claim is about the slowest query: its median.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import psutil
from sqlalchemy import insert, text, update

from app.api.pagination import Cursors
from app.domain.json import dumps
from app.domain.study import StudyDefinition
from app.domain.trial import TrialState
from app.store import lifecycle
from app.store.engine import Database
from app.store.migrate import migrate
from app.store.tables import Study, Trial
from bench.digits import study as digits_study
from bench.overhead import databases
from bench.service import Service, service
from bench.table import Row, show

TRIALS = 100_000
PAGE = 100
GOAL_MS = 15.0
SORTS = ("number", "-number", "value", "-value")
STATES: tuple[tuple[str, ...], ...] = (
    (),
    *((state.value,) for state in TrialState),
    ("COMPLETE", "PRUNED"),
    ("FAIL", "RUNNING", "WAITING"),
    ("COMPLETE", "FAIL", "PRUNED"),
)
FEASIBLE = (None, True, False)
POSITIONS = (0.0, 0.5, 1.0)
VALIDATION_ROWS = 360
"""Accuracies are multiples of one over this: many trials share a value."""
SUSPECTS, CONFIRMATIONS = 8, 25
"""How many of the slowest queries are asked again, and how often each."""
REPORTS = """
INSERT INTO fettle_metrics (trial_id, attempt, epoch, metrics, at)
WITH RECURSIVE numbers(epoch) AS (SELECT 0 UNION ALL SELECT epoch + 1 FROM numbers WHERE epoch < 9)
SELECT id, attempt, epoch, :metrics, created_at
FROM fettle_trials JOIN numbers ON epoch < epochs WHERE study_id = :study
"""
"""Metrics of every epoch, a million rows."""

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """What decides whether and where a list shows a trial."""

    number: int
    state: str
    feasible: bool | None
    value: float | None


def stored_trials(count: int) -> Iterator[tuple[Stored, dict[str, Any]]]:
    """Trials as a worker leaves them behind, most COMPLETE, some states rare; and their other columns."""
    draw = random.Random(0)
    for number in range(count):
        state, feasible, value = "COMPLETE", True, round(draw.betavariate(8, 2) * VALIDATION_ROWS) / VALIDATION_ROWS
        if number >= count - 20:
            state = "RUNNING" if number < count - 4 else "WAITING"
        elif number % (count // 7) == 5:
            state = "FAIL"
        elif number % 10 == 3:
            state = "PRUNED"
        elif number % 997 == 1:
            feasible = False
        kept: float | None = value if state == "COMPLETE" or (state == "PRUNED" and number % 20 == 3) else None
        told = feasible if state == "COMPLETE" else None
        yield Stored(number, state, told, kept), _columns(draw, number, state, value, kept)


def _columns(draw: random.Random, number: int, state: str, accuracy: float, value: float | None) -> dict[str, Any]:
    drawn = {
        "units": draw.choice([32, 64, 96, 128]),
        "activation": draw.choice(["relu", "tanh", "sigmoid"]),
        "l1": 10 ** draw.uniform(-7, -3),
        "l2": 10 ** draw.uniform(-7, -3),
        "dropout": draw.uniform(0, 0.5),
        "learning_rate": 10 ** draw.uniform(-4, -1),
        "lr_schedule": "exponential",
        "decay_rate": draw.uniform(0.1, 0.9),
        "batch_size": draw.choice([32, 64, 128]),
    }
    fixed = {"hidden_layers": 2, "optimizer": "adam", "decay_epochs": 5, "label_smoothing": 0.0, "momentum": 0.9}
    metrics = {
        "loss": draw.random(),
        "accuracy": accuracy,
        "val_loss": draw.random(),
        "val_accuracy": accuracy,
        "learning_rate": drawn["learning_rate"],
        "seconds": draw.random(),
        "parameter_count": 9_000,
        "train_seconds": draw.random(),
        "generalization_gap": draw.gauss(0, 0.01),
    }
    started, is_over = state != "WAITING", state in {"COMPLETE", "PRUNED", "FAIL"}
    at = 1.79e9 + number
    return {
        "reason": "EXCEPTION" if state == "FAIL" else None,
        "error_code": "ValueError" if state == "FAIL" else None,
        "error_message": "Expected a number." if state == "FAIL" else None,
        "attempt": int(started),
        "ordinal": number,
        "hyperparameters": dumps(fixed | drawn) if started else None,
        "sampled": dumps(drawn) if started else None,
        "objective_values": None if value is None else dumps([value]),
        "metrics": dumps(metrics) if is_over else None,
        "selected_epoch": 9 if is_over else None,
        "epochs": 10 if is_over else int(started) * 3,
        "curve": dumps([[epoch, accuracy] for epoch in range(10)]) if is_over else None,
        "lease_token": None if is_over else f"token-{number}",
        "lease_expires_at": None if is_over else at + 1e9,
        "worker_id": "worker-1" if started else None,
        "device": "cpu" if started else None,
        "finish_seq": number + 1 if is_over else None,
        "created_at": at,
        "started_at": at + 0.25 if started else None,
        "finished_at": at + 0.75 if is_over else None,
    }


def fill(database: Database, count: int, name: str = "large") -> tuple[str, list[Stored]]:
    """The public id of a new study with `count` trials, and what it holds."""
    definition = StudyDefinition.model_validate(digits_study(name, 0, count, 64))
    with database.write() as session:
        study = lifecycle.create_study(session, definition, project="default", created_by=None, sample_limit=None)
        study_id, public_id = study.id, study.public_id
    stored = []
    made = stored_trials(count)
    while some := list(itertools.islice(made, 5_000)):
        stored += [one for one, _ in some]
        rows = [
            {"study_id": study_id, "number": s.number, "state": s.state, "feasible": s.feasible, "value": s.value}
            | rest
            for s, rest in some
        ]
        with database.write() as session:
            session.connection().execute(insert(Trial.__table__), rows)
    with database.write() as session:
        states = [one.state for one in stored]
        counts = {state.lower(): states.count(state) for state in TrialState}
        finished = counts["complete"] + counts["pruned"] + counts["fail"]
        session.execute(
            update(Study)
            .where(Study.id == study_id)
            .values(**counts, next_number=count, sampled_count=count, finished_count=finished, leased=count - finished)
        )
        session.execute(text(REPORTS), {"study": study_id, "metrics": dumps({"loss": 0.5, "val_accuracy": 0.5})})
    if not database.is_sqlite:
        with database.engine.begin() as connection:
            connection.execute(text("ANALYZE"))  # as autovacuum does within a minute
    return public_id, stored


def listed(stored: list[Stored], states: tuple[str, ...], feasible: bool | None, sort: str) -> list[Stored]:
    """What a list shows, in order."""
    chosen = [s for s in stored if (not states or s.state in states) and (feasible is None or s.feasible is feasible)]
    if sort == "number":
        return chosen
    if sort == "-number":
        return chosen[::-1]
    sign = -1 if sort == "-value" else 1
    return sorted(chosen, key=lambda s: (s.value is None, sign * (s.value or 0.0), s.number))


@dataclass(frozen=True, slots=True)
class Query:
    """A page to ask for, and the numbers that it must show."""

    path: str
    numbers: list[int]


def queries(public_id: str, stored: list[Stored]) -> list[Query]:
    """Every combination of sort, states and feasibility, from three places each."""
    found = []
    for sort, states, feasible in itertools.product(SORTS, STATES, FEASIBLE):
        kinds = [int] if sort.endswith("number") else [float, int]
        cursors = Cursors(["trials", public_id, sort, sorted(map(TrialState, states)), feasible], kinds)
        shown = listed(stored, states, feasible, sort)
        starts = sorted({min(int(place * len(shown)), max(0, len(shown) - PAGE)) for place in POSITIONS})
        for start in starts:
            query: list[tuple[str, object]] = [("sort", sort), ("limit", PAGE), *(("state", s) for s in states)]
            if feasible is not None:
                query.append(("feasible", str(feasible).lower()))
            if start:
                last = shown[start - 1]
                key: Key = (last.number,) if sort.endswith("number") else (last.value, last.number)
                query.append(("cursor", cursors.encode(key)))
            numbers = [one.number for one in shown[start : start + PAGE]]
            found.append(Query(f"/v1/studies/{public_id}/trials?{urlencode(query)}", numbers))
    return found


class Client:
    """One connection to a service, kept open; nothing is parsed within the time that is measured."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def get(self, path: str) -> tuple[float, bytes]:
        """Milliseconds until the whole answer was read, and the answer."""
        started = time.perf_counter()
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        body = response.read()
        elapsed_ms = 1000 * (time.perf_counter() - started)
        if response.status != 200:
            raise RuntimeError(f"Expected 200 for {path}. Received {response.status}: {body[:500]!r}")
        return elapsed_ms, body


def measure(url: str, asked: list[Query], repetitions: int) -> dict[str, list[float]]:
    """Milliseconds of each query, by its path."""
    client = Client(url)
    found: dict[str, list[float]] = {query.path: [] for query in asked}
    for repetition in range(repetitions):
        for query in asked:
            elapsed_ms, body = client.get(query.path)
            found[query.path].append(elapsed_ms)
            if not repetition:
                numbers = [item["number"] for item in json.loads(body)["items"]]
                if numbers != query.numbers:
                    raise RuntimeError(f"Expected {query.numbers[:5]}… for {query.path}. Received {numbers[:5]}…")
    return found


def confirm(url: str, times: dict[str, list[float]]) -> dict[str, list[float]]:
    """Milliseconds of the queries that looked slowest, asked again many times: a busy moment makes any look slow."""
    client = Client(url)
    slowest = sorted(times, key=lambda path: statistics.median(times[path]))[-SUSPECTS:]
    rounds = [[client.get(path)[0] for path in slowest] for _ in range(CONFIRMATIONS)]
    return {path: [one[i] for one in rounds] for i, path in enumerate(slowest)}


def export(running: Service, public_id: str, kind: str) -> tuple[float, float]:
    """Seconds that a study's export takes, and MB by which the service's memory grows at most meanwhile."""
    server, parts = psutil.Process(running.pid), urlsplit(running.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=600)
    before = peak = server.memory_info().rss
    started = time.perf_counter()
    connection.request("GET", f"/v1/studies/{public_id}/export?format={kind}")
    response = connection.getresponse()
    while response.read(2**20):
        peak = max(peak, server.memory_info().rss)
    return time.perf_counter() - started, (peak - before) / 2**20


def rows(repetitions: int, trials: int = TRIALS) -> list[Row]:
    """Rows of each back end: a repetition's median of all queries, the query with the greatest median, and exports."""
    found = []
    with databases() as urls:
        for backend, (url, _) in urls.items():
            database = Database(url)
            migrate(database)
            public_id, stored = fill(database, trials)
            asked = queries(public_id, stored)
            with service(workers=0, database_url=url) as running:
                spent = psutil.Process(running.pid).cpu_times()
                times = measure(running.url, asked, repetitions)
                now = psutil.Process(running.pid).cpu_times()
                again = confirm(running.url, times)
                exports = {kind: export(running, public_id, kind) for kind in ("json", "csv")}
            database.dispose()
            name = f"page of {PAGE} of {trials:,} trials, {backend}"
            cpu_ms = 1000 * (now.user + now.system - spent.user - spent.system) / (repetitions * len(asked))
            middle = [statistics.median(some[i] for some in times.values()) for i in range(repetitions)]
            found.append(Row(f"{name}, all queries", "ms", middle, note=f"{cpu_ms:.1f} ms CPU of the API process"))
            slowest = max(again, key=lambda path: statistics.median(again[path]))
            worst_ms = statistics.median(again[slowest])
            row = Row(
                f"{name}, slowest query", "ms", again[slowest], goal=f"<= {GOAL_MS:g} ms", met=worst_ms <= GOAL_MS
            )
            row.note = f"of {len(asked)}: {slowest.partition('?')[2].partition('&cursor')[0]}"
            found.append(row)
            for kind, (seconds, grown_mb) in exports.items():
                note = f"memory grew by {grown_mb:.0f} MB"
                found.append(Row(f"export of {trials:,} trials as {kind}, {backend}", "s", [seconds], note=note))
    return found


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    show(rows(given[1] if len(given) > 1 else 5, given[0] if given else TRIALS))
