"""What one proposal costs a worker, against Optuna's own in-memory `ask` and `suggest`, in alternation.

Both have the same finished and running trials of the digits study's space and the same sampler; at each step one trial
finishes and one is asked for. No database on either side.
"""

from __future__ import annotations

import random
import statistics
import time
import warnings
from typing import Any

from app.domain.space import is_active
from app.domain.study import StudyDefinition
from app.domain.trial import Reservation
from app.store.engine import Database
from app.tuning.trials import Space
from app.tuning.view import StudyView
from bench.digits import study
from bench.table import Row

FINISHED, RUNNING = (200, 1000, 20_000), 32
ASKS = {200: 40, 1000: 40, 20_000: 8}
"""Of one repetition, by the number of finished trials."""
GOAL_MS = 5.0
"""What an ask of tpe may cost more than Optuna's."""
GOAL_GROWTH = 1.5
"""What an ask of random with 20,000 finished trials may cost, in units of that with 200."""


class Pair:
    """A worker's view and an Optuna study that know the same number of finished and running trials."""

    def __init__(self, sampler: str, finished: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        body = study("asks", 0, 1, {"type": "int", "low": 32, "high": 128, "step": 32})
        definition = StudyDefinition.model_validate({**body, "sampler": {"name": sampler}})
        self._space, self._turns = Space(definition), random.Random(0)
        # Never connected to: nothing is asked of it.
        self._view = StudyView(Database("sqlite:////nowhere/asks.db"), 1, definition)
        peer = (
            optuna.samplers.TPESampler(seed=0, multivariate=True, group=True, constant_liar=True)
            if sampler == "tpe"
            else optuna.samplers.RandomSampler(seed=0)
        )
        self._study = optuna.create_study(sampler=peer)
        drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
        self._number = 0
        for _ in range(finished):
            trial = drawn.ask()
            self._suggest(trial)
            self._study.add_trial(drawn.tell(trial, self._turns.random()))
            self._view._storage.add_lesson(self._study.get_trials(deepcopy=False)[-1])
            self._number += 1
        self._pending: list[Any] = []
        for _ in range(RUNNING):
            self._theirs()
            self._ours()

    def _suggest(self, trial: Any) -> None:
        drawn: dict[str, Any] = {}
        for name, distribution in self._space.distributions.items():
            if is_active(self._space.parameters[name], drawn):
                drawn[name] = trial._suggest(name, distribution)

    def _theirs(self) -> float:
        started = time.perf_counter()
        trial = self._study.ask()
        self._suggest(trial)
        self._pending.append(trial)
        return 1000 * (time.perf_counter() - started)

    def _ours(self) -> float:
        reservation = Reservation(self._number, self._number, "token", 1, self._number)
        self._number += 1
        started = time.perf_counter()
        self._view.ask([reservation])
        return 1000 * (time.perf_counter() - started)

    def step(self) -> tuple[float, float]:
        """Milliseconds of our ask and of theirs, after a running trial has finished on both sides."""
        finished = self._study.tell(self._pending.pop(0), self._turns.random())
        self._view.forget(finished._trial_id)
        self._view._storage.add_lesson(finished)
        return self._ours(), self._theirs()


def rows(repetitions: int) -> list[Row]:
    """An ask of tpe at each number of finished trials, and of random at the least and the most."""
    found, medians = [], {}
    for sampler, sizes in (("tpe", FINISHED), ("random", (FINISHED[0], FINISHED[-1]))):
        for finished in sizes:
            pair = Pair(sampler, finished)
            runs = [[pair.step() for _ in range(ASKS[finished])] for _ in range(repetitions)]
            ours, theirs = ([statistics.median(step[side] for step in run) for run in runs] for side in (0, 1))
            medians[sampler, finished] = statistics.median(ours)
            row = Row(f"an ask of {sampler}, {finished:,} finished trials, {RUNNING} running", "ms", ours, theirs)
            row.note = "peer: Optuna's ask and suggest in memory"
            if sampler == "tpe":
                row.goal = f"<= peer + {GOAL_MS:g} ms"
                row.met = medians[sampler, finished] <= statistics.median(theirs) + GOAL_MS
            elif finished == FINISHED[-1]:
                row.goal = f"<= {GOAL_GROWTH:g} x that with {FINISHED[0]}"
                row.met = medians[sampler, finished] <= GOAL_GROWTH * medians[sampler, FINISHED[0]]
            found.append(row)
    return found


if __name__ == "__main__":
    from bench.table import show

    show(rows(3))
