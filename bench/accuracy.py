"""Whether speed costs quality: best validation accuracy after 60 trials of the digits MLP, over ten seeds.

Plain Optuna runs at equal parallelism: it asks for as many trials at once as Fettle may have in flight, trains them,
then tells their results. Both take a trial's best epoch. Its training is Fettle's compiled one, which the parity tests
hold to `model.fit`: with that itself ten seeds would take most of an hour.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from bench import sides
from bench.claims import by_repetition
from bench.digits import PLAIN, WORK
from bench.record import FETTLE, Records
from bench.service import service
from bench.table import Row
from bench.tasks import Options, Part, Task
from bench.works import definition

ROW, PEER = "accuracy", "accuracy peer"
TRIALS, SEEDS = 60, 10
IN_FLIGHT = 15
"""Trials in flight on both sides: what a worker keeps of 60 by itself, sampled ones that wait included."""
CONFIDENCE = 0.95


def _ours(seed: int, trials: int) -> Mapping[str, Any]:
    with service() as running:
        running.wait_for_trainer()
        return {ROW: sides.fettle(running, WORK, definition(WORK, "quality", seed, trials, IN_FLIGHT))}


def _theirs(seed: int, trials: int) -> Mapping[str, Any]:
    flags = ("--in-flight", str(IN_FLIGHT))
    return {PEER: sides.peer(sys.executable, "plain_sampling", WORK, trials, seed, *flags, package="bench")}


def tasks(options: Options, records: Records) -> Iterator[Task]:  # noqa: ARG001 - as every part's
    """Both sides of each seed. A few seeds would say nothing: not in a quick run."""
    if options.quick:
        return
    settings = WORK.settings(trials=TRIALS, in_flight=IN_FLIGHT)
    for seed in range(SEEDS):
        yield Task((ROW,), FETTLE, seed, settings, partial(_ours, seed, TRIALS))
        yield Task((PEER,), PLAIN, seed, settings, partial(_theirs, seed, TRIALS))


def difference(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Mean of ours less mean of theirs, with its 95 % interval.

    Source: Welch, 1947, The generalization of "Student's" problem when several population variances are involved.
    """
    from scipy.stats import ttest_ind

    middle = statistics.fmean(ours) - statistics.fmean(theirs)
    interval = ttest_ind(ours, theirs, equal_var=False).confidence_interval(CONFIDENCE)
    return middle, float(interval.low), float(interval.high)


def rows(records: Records) -> list[Row]:
    """One row; met where the interval of the difference does not lie below zero."""
    ours = list(by_repetition(records.latest(ROW, FETTLE), "best").values())
    theirs = list(by_repetition(records.latest(PEER, PLAIN), "best").values())
    if not ours:
        return []
    trials = records.latest(ROW, FETTLE)[-1].settings["trials"]
    row = Row(f"best validation accuracy after {trials} trials, {len(ours)} seeds", "share", ours, theirs)
    row.goal = "within the 95 % interval"
    if len(ours) > 1 and len(theirs) > 1:
        middle, low, high = difference(ours, theirs)
        row.met = high >= 0
        means = f"means {statistics.fmean(ours):.4f} and {statistics.fmean(theirs):.4f}"
        row.note = f"{means}; difference {middle:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}; equal parallelism"
    return [row]


PART = Part("accuracy", tasks, rows)
