"""Whether speed costs quality: best validation accuracy after 60 trials of the digits MLP, over ten seeds.

Plain Optuna + Keras runs at equal parallelism: it asks for as many trials at once as Fettle had in flight, trains them
one after the other, then tells their results. Both take a trial's best epoch.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from bench import sides
from bench.claims import by_repetition
from bench.digits import PLAIN, WORK, study
from bench.record import FETTLE, Records
from bench.service import service
from bench.table import Row
from bench.tasks import Options, Part, Task

ROW, PEER = "quality", "quality peer"
TRIALS, SEEDS = 60, 10
CONFIDENCE = 0.95


def _ours(seed: int, trials: int) -> Mapping[str, Any]:
    with service() as running:
        running.wait_for_trainer()
        return {ROW: sides.fettle(running, WORK, study("quality", seed, trials))}


def _theirs(seed: int, trials: int, in_flight: int) -> Mapping[str, Any]:
    flags = ("--in-flight", str(in_flight))
    return {PEER: sides.peer(sys.executable, "plain_keras", WORK, trials, seed, *flags)}


def tasks(options: Options, records: Records) -> Iterator[Task]:
    """All seeds of Fettle, then all of plain with what Fettle had in flight by its records, the median of its seeds.

    Nothing here is timed, so sides need not alternate. A few seeds would say nothing: not in a quick run.
    """
    if options.quick:
        return
    settings = WORK.settings(trials=TRIALS)
    for seed in range(SEEDS):
        yield Task((ROW,), FETTLE, seed, settings, partial(_ours, seed, TRIALS))
    # The generator goes on after the tasks above have run, so their records are there unless they failed.
    ours = records.latest(ROW, FETTLE)
    if not ours:
        return
    in_flight = statistics.median_high(r.figures["in_flight"] for r in ours)
    for seed in range(SEEDS):
        run = partial(_theirs, seed, TRIALS, in_flight)
        yield Task((PEER,), PLAIN, seed, settings | {"in_flight": in_flight}, run)


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
