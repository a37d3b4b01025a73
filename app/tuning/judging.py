"""Pruning with several objectives, in a worker's memory: by non-domination, or by a pruner for each objective.

Optuna's pruners and `Trial.report` refuse several objectives. A *bench* here is what such a pruner needs: a study of
one objective in memory, with that objective's values by epoch alone. The study's pruner judges on the bench of the
metric that its options name, or on all benches, of which any one or all must agree (`rule`). What a halving pruner
remembers of a trial is kept under `completed_rung_0@1`: the rung, and the objective's place; the first one's has none.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from app.domain.study import StudyDefinition
from app.tuning.bound import BoundStorage
from app.tuning.halving import RungValues, brackets_of
from app.tuning.pareto import FrontPruner
from app.tuning.pruners import JudgingOptions, ParetoOptions, build_pruner, judged_objectives, pruner_options
from app.tuning.trials import RUNG_PREFIX, Curve

PLACE = "@"
"""Between a rung's key and the objective's place."""


class _Bench:
    """One objective's pruner, and what it has seen: the same as in a study of this objective alone."""

    def __init__(self, definition: StudyDefinition, place: int, pruner: BasePruner) -> None:
        self.place = place
        direction = StudyDirection[definition.objectives[place].direction.upper()]
        self._storage = BoundStorage(0, definition.name, [direction], lambda _, value: value)
        brackets = brackets_of(pruner)
        self._storage.rung_values = None if brackets is None else RungValues(brackets)
        self._pruner = pruner
        self._study = Study(definition.name, self._storage, pruner=pruner)

    def begin(self, trial: FrozenTrial, reported: Mapping[int, float]) -> None:
        mine = copy.copy(trial)
        mine._system_attrs = self._rungs_of(trial.system_attrs)
        mine.intermediate_values = dict(reported)
        self._storage.held[trial._trial_id] = mine

    def judge(self, trial_id: int, epoch: int, value: float) -> bool:
        trial = self._storage.held[trial_id]
        trial.intermediate_values[epoch] = value
        if math.isnan(value):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, about slices that are all NaN
                return bool(self._pruner.prune(self._study, trial))
        return bool(self._pruner.prune(self._study, trial))

    def rungs(self, trial_id: int) -> dict[str, Any]:
        """What the pruner wants remembered of a running trial, by the keys under which it is stored."""
        trial = self._storage.held.get(trial_id)
        if trial is None:
            return {}
        return {self._stored_key(k): v for k, v in trial.system_attrs.items() if k.startswith(RUNG_PREFIX)}

    def forget(self, trial_id: int) -> None:
        self._storage.held.pop(trial_id, None)

    def take(self, trial: FrozenTrial, curve: Curve) -> None:
        finished = copy.copy(trial)
        finished._system_attrs = self._rungs_of(trial.system_attrs)
        finished.intermediate_values = {epoch: values[self.place] for epoch, values in curve.items()}
        self._storage.add_finished(finished)

    def _stored_key(self, key: str) -> str:
        return f"{key}{PLACE}{self.place}" if self.place else key

    def _rungs_of(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for key, value in attributes.items():
            rung, _, place = key.partition(PLACE)
            if rung.startswith(RUNG_PREFIX) and int(place or 0) == self.place:
                found[rung] = value
        return found


class Judge:
    """Decides which trials of a study with several objectives are pruned. The view has the lock."""

    def __init__(self, definition: StudyDefinition) -> None:
        options = pruner_options(definition.pruner.name, definition.pruner.options)
        directions = [StudyDirection[o.direction.upper()] for o in definition.objectives]
        is_front = isinstance(options, ParetoOptions)
        self._front = FrontPruner(directions, **options.model_dump()) if is_front else None
        self._needs_all = isinstance(options, JudgingOptions) and options.rule == "all"
        self._reported: dict[int, set[int]] = {}
        """The epochs of running trials that were judged, by id."""
        self._benches: list[_Bench] = []
        for place in [] if is_front else judged_objectives(definition):
            pruner = build_pruner(definition)
            if pruner is not None:
                self._benches.append(_Bench(definition, place, pruner))

    def take(self, trial: FrozenTrial, curve: Curve, *, feasible: bool) -> None:
        """Take in a trial that has finished, with its objectives' values by epoch."""
        if self._front is not None and feasible and trial.state == TrialState.COMPLETE:
            self._front.add(curve)
        for bench in self._benches:
            bench.take(trial, curve)

    def begin(self, trial: FrozenTrial, reported: Curve) -> None:
        """Take over a running trial, with what it reported so far."""
        self._reported[trial._trial_id] = set(reported)
        for bench in self._benches:
            bench.begin(trial, {epoch: values[bench.place] for epoch, values in reported.items()})

    def report(self, trial: FrozenTrial, epoch: int, values: Sequence[float]) -> bool:
        """Whether to prune `trial`, whose objectives have these `values` at `epoch`; False where it was reported."""
        if trial._trial_id not in self._reported:
            self.begin(trial, {})
        known = self._reported[trial._trial_id]
        if epoch in known:
            return False
        known.add(epoch)
        if self._front is not None:
            return self._front.prune(epoch, values)
        # All are asked, also where one decides: a halving pruner remembers the rungs that it was asked about.
        verdicts = [bench.judge(trial._trial_id, epoch, values[bench.place]) for bench in self._benches]
        return bool(verdicts) and (all(verdicts) if self._needs_all else any(verdicts))

    def system_attributes(self, trial_id: int) -> dict[str, Any]:
        """What the pruners want remembered with a running trial."""
        found: dict[str, Any] = {}
        for bench in self._benches:
            found |= bench.rungs(trial_id)
        return found

    def forget(self, trial_id: int) -> None:
        """Forget a running trial."""
        self._reported.pop(trial_id, None)
        for bench in self._benches:
            bench.forget(trial_id)
