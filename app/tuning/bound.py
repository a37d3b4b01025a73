"""What Optuna's samplers and pruners see of one study in a worker: memory, kept up to date by the view."""

from __future__ import annotations

import bisect
import copy
from collections.abc import Callable, Container, Sequence
from operator import attrgetter
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from app.tuning.halving import RungValues
from app.tuning.percentile import StepValues

Claim = Callable[[str, Any], Any]
"""Stores a study attribute where there is none, and gives the value that stands."""

_by_number = attrgetter("number")


class BoundStorage(BaseStorage):
    """One study, for one sampler and one pruner. Trial attributes stay here until the view takes them along.

    `finished` is what happened; `lessons` is what a sampler may learn from it, in which trials that failed by their
    hyperparameters are COMPLETE with a broken constraint. Both are sorted by number. `asking` chooses between them.
    Not thread-safe: the view has the lock.
    """

    def __init__(self, study_id: int, name: str, directions: Sequence[StudyDirection], claim: Claim) -> None:
        self._study_id = study_id
        self._name = name
        self._directions = list(directions)
        self._claim = claim
        self.asking = False
        self.finished: list[FrozenTrial] = []
        self.lessons: list[FrozenTrial] = []
        self.arrived: list[FrozenTrial] = []
        """The lessons in the order in which they came."""
        self._finished_by_id: dict[int, FrozenTrial] = {}
        self._lessons_by_id: dict[int, FrozenTrial] = {}
        self.held: dict[int, FrozenTrial] = {}
        """Trials that this process sampled and hasn't seen the end of, by id."""
        self.elsewhere: dict[int, FrozenTrial] = {}
        """Running trials of other processes, by id: their parameters alone."""
        self.study_attributes: dict[str, Any] = {}
        self.lost_claim = False
        """Whether another process had set a study attribute first since this was last made False."""
        self.step_values = StepValues()
        self.rung_values: RungValues | None = None
        """Where the pruner is a halving one."""

    def add_finished(self, trial: FrozenTrial) -> None:
        """Add what happened in a trial."""
        bisect.insort(self.finished, trial, key=_by_number)
        self._finished_by_id[trial._trial_id] = trial
        if trial.state == TrialState.COMPLETE:
            self.step_values.add(trial)
        if self.rung_values is not None:
            self.rung_values.add(trial)

    def add_lesson(self, trial: FrozenTrial) -> None:
        """Add what a sampler may learn from a trial."""
        bisect.insort(self.lessons, trial, key=_by_number)
        self._lessons_by_id[trial._trial_id] = trial
        self.arrived.append(trial)

    # What samplers and pruners use

    def get_study_id_from_name(self, study_name: str) -> int:  # noqa: ARG002
        return self._study_id

    def get_study_name_from_id(self, study_id: int) -> str:  # noqa: ARG002
        return self._name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:  # noqa: ARG002
        return self._directions

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:  # noqa: ARG002
        return self.study_attributes

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:  # noqa: ARG002
        standing = self._claim(key, value)
        self.study_attributes = {**self.study_attributes, key: standing}
        self.lost_claim = self.lost_claim or standing != value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        # A copy: what was read of the trial before must not change.
        trial = copy.copy(self.held[trial_id])
        trial._system_attrs = {**trial.system_attrs, key: value}
        self.held[trial_id] = trial

    def get_trial(self, trial_id: int) -> FrozenTrial:
        finished = self._lessons_by_id if self.asking else self._finished_by_id
        for trials in (self.held, self.elsewhere, finished):
            if trial_id in trials:
                return trials[trial_id]
        raise KeyError(f"Expected the id of a trial that the view has seen. Received: {trial_id}")

    def get_all_trials(
        self,
        study_id: int,  # noqa: ARG002
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        finished = self.lessons if self.asking else self.finished
        trials = list(finished) if states is None else [trial for trial in finished if trial.state in states]
        if states is None or TrialState.RUNNING in states:
            trials += sorted([*self.held.values(), *self.elsewhere.values()], key=_by_number)
        return copy.deepcopy(trials) if deepcopy else trials

    # What only a study's own loop would use

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        _refuse(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        _refuse()

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        _refuse(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        _refuse(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        _refuse(study_id, key, value)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        _refuse(study_id, template_trial)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        _refuse(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        _refuse(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        _refuse(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        _refuse(trial_id, key, value)


def _refuse(*received: object) -> NoReturn:
    raise RuntimeError(f"Expected samplers and pruners alone to use a worker's view of a study. Received: {received!r}")
