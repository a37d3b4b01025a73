"""The digits MLP through HTTP against plain Optuna and `model.fit`, KerasTuner and Ray Tune, in alternation."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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

WORK = WORKS["digits-mlp"]
PLAIN, KERAS_TUNER, RAY, RAY_REUSED = "plain", "KerasTuner", "Ray Tune", "Ray Tune, reuse_actors"
FRESH, WARM, LONG, PEER = "digits fresh", "digits warm", "digits long", "digits peer"
WARM_SEED = 100
"""Added to the seed of the second study on a service, so that it asks for other trials."""


@dataclass(frozen=True)
class Sizes:
    """Trials of one repetition on each side: peers are slow, and a rate needs no more of them."""

    short: int = 200
    long: int = 1000
    plain: int = 30
    keras_tuner: int = 24
    ray: int = 8
    ray_reused: int = 24


QUICK = Sizes(short=40, long=0, plain=6, keras_tuner=5, ray=4, ray_reused=6)


def study(name: str, seed: int, trials: int, units: Any = 64) -> dict[str, Any]:
    """The work as a study of Fettle, with `units` a number or a range of the search space."""
    found = definition(WORK, name, seed, trials)
    found["hyperparameters"] |= {"units": units}
    return found


def _fresh_and_warm(seed: int, trials: int) -> Mapping[str, Any]:
    """The same study twice on a service with empty compile caches; TensorFlow is imported before the clock starts."""
    with service() as running:
        running.wait_for_trainer()
        fresh = sides.fettle(running, WORK, study("fresh", seed, trials))
        warm = sides.fettle(running, WORK, study("warm", seed + WARM_SEED, trials))
    return {FRESH: fresh, WARM: warm}


def _long(seed: int, trials: int) -> Mapping[str, Any]:
    with service() as running:
        running.wait_for_trainer()
        return {LONG: sides.fettle(running, WORK, study("long", seed, trials))}


def _peer(python: Path | str, script: str, trials: int, seed: int, flags: tuple[str, ...]) -> Mapping[str, Any]:
    return {PEER: sides.peer(python, script, WORK, trials, seed, *flags)}


def tasks(options: Options, _records: Records) -> Iterator[Task]:
    """Fettle, plain, KerasTuner, Ray Tune twice, Fettle with more trials; and again."""
    sizes = QUICK if options.quick else Sizes()
    peers: tuple[tuple[str, Path | str, str, int, tuple[str, ...]], ...] = (
        (PLAIN, sys.executable, "plain_keras", sizes.plain, ()),
        (KERAS_TUNER, options.peers_python, "keras_tuner_peer", sizes.keras_tuner, ()),
        (RAY, options.peers_python, "ray_tune_peer", sizes.ray, ("--fresh-actors",)),
        (RAY_REUSED, options.peers_python, "ray_tune_peer", sizes.ray_reused, ()),
    )
    for seed in range(options.repetitions):
        run = partial(_fresh_and_warm, seed, sizes.short)
        yield Task((FRESH, WARM), FETTLE, seed, WORK.settings(trials=sizes.short), run)
        for side, python, script, trials, flags in peers:
            run = partial(_peer, python, script, trials, seed, flags)
            yield Task((PEER,), side, seed, WORK.settings(trials=trials), run)
        if sizes.long:
            yield Task((LONG,), FETTLE, seed, WORK.settings(trials=sizes.long), partial(_long, seed, sizes.long))


CLAIMS = (
    Claim("digits MLP, {trials} trials, fresh service", FRESH, PEER, PLAIN, 35),
    Claim("the same again, warm", WARM, PEER, PLAIN, 60),
    Claim("digits MLP, {trials} trials, fresh service", LONG, PEER, PLAIN, 55),
    Claim("the same, warm, against KerasTuner", WARM, PEER, KERAS_TUNER, 60),
    Claim("the same, warm, against Ray Tune", WARM, PEER, RAY, 150, note="Tune's default: a process a trial"),
    Claim("the same, warm, against Ray Tune with reuse_actors", WARM, PEER, RAY_REUSED, None),
)

COMPARISON = Comparison(
    f"{WORK.title}, {WORK.epochs} epochs",
    (
        Line("Fettle, fresh service", FRESH, FETTLE),
        Line("Fettle, the same again, warm", WARM, FETTLE),
        Line("Fettle, fresh service, more trials", LONG, FETTLE),
        Line("plain Optuna + Keras", PEER, PLAIN),
        Line("KerasTuner, RandomSearch", PEER, KERAS_TUNER),
        Line("Ray Tune, a process a trial (its default)", PEER, RAY),
        Line("Ray Tune, reuse_actors", PEER, RAY_REUSED),
    ),
)


def rows(records: Records) -> list[Row]:
    """The claims about the digits MLP."""
    return claimed(records, CLAIMS)


PART = Part("digits", tasks, rows, COMPARISON)
