"""Multivariate TPE with a constant liar for a declared space, quick with many finished trials and many in flight.

Up to `PARALLEL` trials in flight it proposes what Optuna's `TPESampler(multivariate=True, group=True,
constant_liar=True)` does from the same seed and trials, beyond that with fewer good ones (`good_count`). Optuna's
reads, sorts and converts all trials in Python at each ask; here a finished trial is ranked and converted once, and an
ask is array operations (`app.tuning.parzen`). All of Optuna's private names that this relies on are in this module, and
a test holds it to Optuna's own proposals.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import (
    _split_trials,
    default_gamma,
    default_gamma_multiobjective,
    default_weights,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from app.tuning.bound import BoundStorage
from app.tuning.parzen import Array, Axes, Parzen

if TYPE_CHECKING:
    from optuna.study import Study

MOST_GOOD = default_gamma(10**9)
"""Of one objective, no more trials than this ever count as good ones."""
PARALLEL = 16
"""Trials in flight up to which the share of good trials is Optuna's."""

Point = list[float]
Rank = tuple[int, float, float, int]
"""Better trials come first: complete ones by value, pruned ones by how far they came, infeasible ones by violation."""


class Group:
    """Parameters that are drawn together or not at all, and what the finished trials that have them drew."""

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self.names = tuple(space)
        self.axes = Axes(list(space.values()))
        self.numbers: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        """Of the trials, ascending."""
        self.points: Array = np.empty((len(space), 0))

    def point(self, params: Mapping[str, Any]) -> Point | None:
        """The coordinates of a trial; None where it lacks the parameters."""
        if not all(name in params for name in self.names):
            return None
        return [axis.coordinate(params[name]) for name, axis in zip(self.names, self.axes.every, strict=True)]

    def add(self, trials: Iterable[FrozenTrial]) -> None:
        """Take in finished trials."""
        self.numbers, self.points = self._with((trial.number, self.point(trial.params)) for trial in trials)

    def _with(self, more: Iterable[tuple[int, Point | None]]) -> tuple[NDArray[np.int64], Array]:
        added = [(number, point) for number, point in more if point is not None]
        if not added:
            return self.numbers, self.points
        numbers = np.append(self.numbers, [number for number, _ in added])
        points = np.concatenate([self.points, np.array([point for _, point in added]).T], axis=1)
        if np.all(numbers[1:] > numbers[:-1]):
            return numbers, points
        order = np.argsort(numbers, kind="stable")
        return numbers[order], points[:, order]

    def split(self, good: Sequence[int], running: Iterable[tuple[int, Point | None]]) -> tuple[Array, Array]:
        """The points of good trials (their numbers ascending), and of all others, the running ones among them."""
        numbers, points = self._with(running)
        is_good = np.zeros(numbers.size, dtype=bool)
        if good:
            at = np.searchsorted(numbers, good)
            inside = at < numbers.size
            at, wanted = at[inside], np.asarray(good)[inside]
            is_good[at[numbers[at] == wanted]] = True
        return points[:, is_good], points[:, ~is_good]


class Tpe(TPESampler):
    """TPE over a worker's view of a study. `groups` partition the searched parameters with more than one value.

    A group is drawn when its first parameter is wanted, so that one whose conditions don't hold costs nothing.
    """

    def __init__(
        self,
        groups: Sequence[Mapping[str, BaseDistribution]],
        *,
        n_startup_trials: int,
        n_ei_candidates: int,
        seed: int,
    ) -> None:
        super().__init__(
            n_startup_trials=n_startup_trials,
            n_ei_candidates=n_ei_candidates,
            seed=seed,
            multivariate=True,
            constant_liar=True,
        )
        self._groups = [Group(space) for space in groups]
        self._learned = 0
        """How many of the storage's lessons were taken in."""
        self._finished = 0
        self._best: list[Rank] = []
        """The best finished trials of one objective, best first: as many as may count as good."""
        self._good: list[int] = []
        """The numbers of the trials of which to propose more, ascending."""
        self._running: list[tuple[int, list[Point | None]]] = []
        """The number and the point in each group of the running trials but the one that is asked for."""
        self._points: dict[int, tuple[Mapping[str, Any], list[Point | None]]] = {}
        """Of running trials by id: the parameters that were converted, and their points."""
        self._drawn: dict[str, Any] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """Nothing: all parameters are drawn when they are wanted."""
        return {}

    def sample_relative(
        self,
        study: Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Nothing, likewise."""
        return {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Take in what has finished and what runs."""
        storage = cast("BoundStorage", study._storage)
        self._drawn = {}
        self._running = self._read_running(storage, trial)
        lessons = storage.arrived[self._learned :]
        self._learned += len(lessons)
        news = [lesson for lesson in lessons if lesson.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        self._finished += len(news)
        for group in self._groups:
            group.add(news)
        if len(study.directions) == 1:
            ranks = (rank(lesson, study.direction) for lesson in news)
            self._best = heapq.nsmallest(MOST_GOOD, [*self._best, *ranks])
            count = good_count(self._finished, len(self._running) + 1)
            self._good = sorted(number for *_, number in self._best[:count])
        elif news:
            finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
            self._good = good_of_several(study, finished, default_gamma_multiobjective(self._finished))

    def _read_running(self, storage: BoundStorage, asked: FrozenTrial) -> list[tuple[int, list[Point | None]]]:
        known, self._points = self._points, {}
        found = []
        for running in (*storage.held.values(), *storage.elsewhere.values()):
            if running.number == asked.number:
                continue
            params, points = known.get(running._trial_id, (None, []))
            if params is not running.params:
                params, points = running.params, [group.point(running.params) for group in self._groups]
            self._points[running._trial_id] = params, points
            found.append((running.number, points))
        return found

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The parameter's value; at random until enough trials have finished."""
        group = next((i for i, group in enumerate(self._groups) if param_name in group.names), None)
        if group is None or self._finished < self._n_startup_trials:
            return self._random_sampler.sample_independent(study, trial, param_name, param_distribution)
        if param_name not in self._drawn:
            running = [(number, points[group]) for number, points in self._running]
            self._drawn |= self._propose(self._groups[group], running)
        return self._drawn[param_name]

    def _propose(self, group: Group, running: list[tuple[int, Point | None]]) -> dict[str, Any]:
        """The candidate that is likeliest among the good trials compared to the others."""
        good, others = group.split(self._good, running)
        likely = Parzen(group.axes, good, np.ones(good.shape[1]))
        unlikely = Parzen(group.axes, others, default_weights(others.shape[1]))
        candidates = likely.sample(self._rng.rng, self._n_ei_candidates)
        gain = likely.log_density(candidates) - unlikely.log_density(candidates)
        best = candidates[:, int(np.argmax(gain))]
        return {
            name: axis.value(coordinate)
            for name, axis, coordinate in zip(group.names, group.axes.every, best, strict=True)
        }


def good_count(finished: int, parallel: int) -> int:
    """How many of the finished trials of one objective count as good, with so many in flight.

    Optuna's: a tenth, at most 25. Beyond `PARALLEL` in flight it is fewer in proportion. The liar pushes proposals away
    from what runs, and the more runs, the farther from the few points that are worth a closer look; fewer good trials
    make up for it. (docs/sampling-quality.md has the measurement.)
    """
    share = min(1.0, PARALLEL / parallel)
    return min(math.ceil(0.1 * finished * share), MOST_GOOD)


def good_of_several(study: Study, finished: Sequence[FrozenTrial], count: int) -> list[int]:
    """The numbers of the `count` best finished trials of several objectives, ascending.

    COMPLETE ones come first, by fronts and then by hypervolume as with Optuna, then pruned ones by how far they came,
    then those that break constraints. (Optuna ranks pruned trials by their one objective and raises with several.)
    """
    pruned = [trial for trial in finished if trial.state == TrialState.PRUNED]
    if not pruned:
        return [trial.number for trial in _split_trials(study, list(finished), count)[0]]
    complete = [trial for trial in finished if trial.state == TrialState.COMPLETE]
    sound: list[FrozenTrial] = []
    broken: list[FrozenTrial] = []
    for trial in complete:
        (broken if any(amount > 0 for amount in trial.constraints.values()) else sound).append(trial)
    good, _ = _split_trials(study, sound, count)
    pruned.sort(key=lambda trial: (-max(trial.intermediate_values, default=-1), trial.number))
    good += pruned[: count - len(good)]
    good += _split_trials(study, broken, count - len(good))[0]
    return sorted(trial.number for trial in good)


def rank(trial: FrozenTrial, direction: StudyDirection) -> Rank:
    """Where a finished trial of one objective stands among the others."""
    sign = 1.0 if direction == StudyDirection.MINIMIZE else -1.0
    violation = sum(amount for amount in trial.constraints.values() if amount > 0)
    if violation > 0:
        return 2, violation, 0.0, trial.number
    if trial.state == TrialState.COMPLETE:
        return 0, sign * cast("float", trial.value), 0.0, trial.number
    if not trial.intermediate_values:
        return 1, 1.0, 0.0, trial.number
    step, value = max(trial.intermediate_values.items())
    return 1, float(-step), math.inf if math.isnan(value) else sign * value, trial.number
