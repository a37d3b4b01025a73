"""Convolutional networks against plain Optuna and Keras: a small one on digits, and one whose cost is its arithmetic.

The compute-bound one runs on `shapes`, 6,000 images of 28×28. It is also run until a trial reaches the target accuracy:
Fettle with hyperband, plain without a pruner, and plain with Optuna's own hyperband beside them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from bench import sides
from bench.claims import Claim, Comparison, Line, claimed
from bench.record import FETTLE, Records
from bench.service import service
from bench.table import Row
from bench.tasks import Options, Part, Task
from bench.works import WORKS, Work, definition

PLAIN, PLAIN_HYPERBAND = "plain", "plain with hyperband"
SMALL_FRESH, SMALL_WARM, SMALL_PEER = "small CNN fresh", "small CNN warm", "small CNN peer"
LARGE, LARGE_PEER = "compute-bound CNN", "compute-bound CNN peer"
RACE, RACE_PEER = "compute-bound CNN to target", "compute-bound CNN to target peer"
SMALL, LARGE_WORK = WORKS["digits-cnn"], WORKS["shapes-cnn"]
WARM_SEED = 100
MOST_TRIALS, MOST_PRUNED_TRIALS = 60, 240
"""Where the target is not reached in so many trials, a race is over; most of those of hyperband are short."""
HYPERBAND = {"name": "hyperband", "options": {"min_resource": 1, "reduction_factor": 3}}


def _plain(row: str, work: Work, trials: int, seed: int, *flags: str) -> Mapping[str, Any]:
    return {row: sides.peer(sys.executable, "plain_keras", work, trials, seed, *flags)}


def _small(seed: int, trials: int) -> Mapping[str, Any]:
    with service() as running:
        running.wait_for_trainer()
        fresh = sides.fettle(running, SMALL, definition(SMALL, "fresh", seed, trials))
        warm = sides.fettle(running, SMALL, definition(SMALL, "warm", seed + WARM_SEED, trials))
    return {SMALL_FRESH: fresh, SMALL_WARM: warm}


def _large(seed: int, trials: int) -> Mapping[str, Any]:
    with service() as running:
        running.wait_for_trainer()
        return {LARGE: sides.fettle(running, LARGE_WORK, definition(LARGE_WORK, "large", seed, trials))}


def _race(seed: int) -> Mapping[str, Any]:
    """Hyperband until a trial reaches the target, on a fresh service."""
    objective = {"metric": "val_accuracy", "direction": "maximize", "target": LARGE_WORK.target}
    study = definition(LARGE_WORK, "race", seed, MOST_PRUNED_TRIALS, objectives=[objective], pruner=HYPERBAND)
    with service() as running:
        running.wait_for_trainer()
        return {RACE: sides.fettle(running, LARGE_WORK, study)}


def small_tasks(options: Options, _records: Records) -> Iterator[Task]:
    """Fettle fresh and warm, then plain; and again."""
    ours, theirs = (24, 4) if options.quick else (100, 24)
    for seed in range(options.repetitions):
        run = partial(_small, seed, ours)
        yield Task((SMALL_FRESH, SMALL_WARM), FETTLE, seed, SMALL.settings(trials=ours), run)
        run = partial(_plain, SMALL_PEER, SMALL, theirs, seed)
        yield Task((SMALL_PEER,), PLAIN, seed, SMALL.settings(trials=theirs), run)


def large_tasks(options: Options, _records: Records) -> Iterator[Task]:
    """Fettle, then plain; and again."""
    ours, theirs = (6, 3) if options.quick else (24, 12)
    for seed in range(options.repetitions):
        yield Task((LARGE,), FETTLE, seed, LARGE_WORK.settings(trials=ours), partial(_large, seed, ours))
        run = partial(_plain, LARGE_PEER, LARGE_WORK, theirs, seed)
        yield Task((LARGE_PEER,), PLAIN, seed, LARGE_WORK.settings(trials=theirs), run)


def race_tasks(options: Options, _records: Records) -> Iterator[Task]:
    """Fettle with hyperband, plain, plain with hyperband, each until the target; and again. Not in a quick run."""
    if options.quick:
        return
    for seed in range(options.repetitions):
        settings = LARGE_WORK.settings(most_trials=MOST_PRUNED_TRIALS)
        yield Task((RACE,), FETTLE, seed, settings, partial(_race, seed))
        for side, trials, flags in (
            (PLAIN, MOST_TRIALS, ()),
            (PLAIN_HYPERBAND, MOST_PRUNED_TRIALS, ("--hyperband",)),
        ):
            run = partial(_plain, RACE_PEER, LARGE_WORK, trials, seed, "--until-target", *flags)
            yield Task((RACE_PEER,), side, seed, LARGE_WORK.settings(most_trials=trials), run)


SMALL_CLAIMS = (
    Claim("digits small CNN, fresh service", SMALL_FRESH, SMALL_PEER, PLAIN, 8),
    Claim("the same again, warm", SMALL_WARM, SMALL_PEER, PLAIN, None),
)
LARGE_CLAIMS = (Claim("compute-bound CNN, fresh service", LARGE, LARGE_PEER, PLAIN, 1.3),)
RACE_CLAIMS = (
    Claim("compute-bound CNN with hyperband, time to target", RACE, RACE_PEER, PLAIN, 4, "target_s"),
    Claim("the same, both with hyperband", RACE, RACE_PEER, PLAIN_HYPERBAND, None, "target_s"),
)


def small_rows(records: Records) -> list[Row]:
    """The claims about the small network."""
    return claimed(records, SMALL_CLAIMS)


def large_rows(records: Records) -> list[Row]:
    """The claim about the compute-bound network."""
    return claimed(records, LARGE_CLAIMS)


def race_rows(records: Records) -> list[Row]:
    """The claims about time to target."""
    return claimed(records, RACE_CLAIMS)


def _compared(work: Work, ours: tuple[str, ...], theirs: str, peers: tuple[str, ...], what: str = "") -> Comparison:
    lines = (*(Line(f"Fettle, {row.split()[-1]}" if len(ours) > 1 else FETTLE, row, FETTLE) for row in ours),)
    return Comparison(f"{work.title}, {work.epochs} epochs{what}", lines + tuple(Line(p, theirs, p) for p in peers))


SMALL_PART = Part("cnn", small_tasks, small_rows, _compared(SMALL, (SMALL_FRESH, SMALL_WARM), SMALL_PEER, (PLAIN,)))
LARGE_PART = Part("compute", large_tasks, large_rows, _compared(LARGE_WORK, (LARGE,), LARGE_PEER, (PLAIN,)))
RACE_PART = Part(
    "race",
    race_tasks,
    race_rows,
    _compared(LARGE_WORK, (RACE,), RACE_PEER, (PLAIN, PLAIN_HYPERBAND), ", until the target is reached"),
)
