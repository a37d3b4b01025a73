"""A worker's view of one study: asks and prunes in memory, reads the database incrementally, writes nothing of trials.

The results of trials reach the database by fenced writes of the worker alone, which take along what the sampler and the
pruner want remembered (`system_attributes`). Study attributes, which `nsgaii` uses to agree on a generation's parents,
are set where there are none; whoever comes second takes the first one's.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from optuna.exceptions import ExperimentalWarning
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy import Row

from app.domain.families import Family, Scalar
from app.domain.fixed import are_large, varied, whole
from app.domain.identity import identity
from app.domain.json import loads
from app.domain.study import StudyDefinition, trial_seed
from app.domain.trial import Proposal, Reservation
from app.store import optuna as store
from app.store.engine import Database
from app.store.warm_start import earlier_trials
from app.tuning.bound import BoundStorage
from app.tuning.declared import ORDINAL_KEY, Gp, Nsgaii, Nsgaiii, always_drawn, reseed
from app.tuning.duplicates import REDRAWS, Tried
from app.tuning.halving import RungValues, brackets_of
from app.tuning.judging import Judge
from app.tuning.lessons import Lessons
from app.tuning.pbt import Pbt, ancestry
from app.tuning.pruners import build_pruner, pruner_compares
from app.tuning.samplers import build_sampler, sampler_learns, study_seed
from app.tuning.suggest import complete, draw, kept_attributes, of_new_attempt, running_trial
from app.tuning.tpe import Tpe
from app.tuning.trials import Curve, Space, read_curves

CLAIM_TRIES = 3
"""Draws of a trial whose sampler finds another process' choice of parents each time; the last one stands."""
VIEW_BYTES = 100_000
TRIAL_BYTES = 2_000
"""What a finished trial takes in memory beside what it sampled and reported."""
BYTES_OF_TEXT = 8
"""What a character of those takes as Python's numbers and names, about."""
REDRAW_SEED = 2**32
"""Between the seeds of a trial's draws: study seeds are smaller."""


class StudyView:
    """Proposals and pruning for one study of the service, the same in every process that has seen the same trials.

    `sync` before `ask`; call `finished` or `forget` for every trial that was asked for or adopted. Thread-safe. Making
    one reads nothing. `family` is the study's, whose defaults complete what is drawn.
    """

    def __init__(
        self, database: Database, study_id: int, definition: StudyDefinition, family: Family | None = None
    ) -> None:
        self._database = database
        self._family = family
        self._study_id = study_id
        self._definition = definition
        self._space = Space(definition)
        self._seed = study_seed(definition)
        self._lock = threading.RLock()
        directions = [StudyDirection[o.direction.upper()] for o in definition.objectives]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._sampler = build_sampler(definition)
            self._pruner = build_pruner(definition) if len(directions) == 1 else None
            self._judge = Judge(definition) if len(directions) > 1 and definition.pruner.name != "none" else None
        self._storage = BoundStorage(study_id, definition.name, directions, self._claim)
        brackets = brackets_of(self._pruner)
        self._storage.rung_values = None if brackets is None else RungValues(brackets)
        self._study = Study(definition.name, self._storage, sampler=self._sampler, pruner=self._pruner)
        required = always_drawn(definition) if isinstance(self._sampler, Gp | Nsgaii | Nsgaiii) else {}
        genetic = isinstance(self._sampler, Nsgaii | Nsgaiii)
        self._lessons = Lessons(
            self._storage, self._space, directions, required=frozenset(required), failures=not genetic
        )
        self._reads_finished = sampler_learns(definition) or (
            definition.pruner.name != "none" and pruner_compares(definition)
        )
        self._reads_running = isinstance(self._sampler, Tpe | Gp)
        self._reads_attributes = genetic
        self._is_warm_started = bool(definition.warm_start.studies)
        """Whether earlier trials are still to be read."""
        self._duplicates = definition.execution.duplicates
        self._tried = Tried(definition) if self._duplicates == "resample" else None
        if self._tried is not None:
            self._reads_finished = self._reads_running = True
        self.bytes = VIEW_BYTES
        """What the view takes in memory, about."""
        self._keeps_varied = are_large(definition.fixed)
        self._seen = 0
        self._sampled: dict[int, str | None] = {}
        """What running trials had sampled at the last `sync`, as JSON, by id."""

    def sync(self) -> None:
        """Read what has happened in other processes, and the trials that finished since the last call.

        At most three statements; none for a sampler and a pruner that look at no other trials.
        """
        with self._lock:
            if not (self._reads_finished or self._reads_running):
                return
            with self._database.read() as session:
                if self._is_warm_started:
                    key = self._sampler._get_generation_key() if isinstance(self._sampler, Nsgaii | Nsgaiii) else None
                    self._lessons.take_earlier(earlier_trials(session, self._study_id), key)
                    self._is_warm_started = False
                # Attributes first: the trials that they name have finished before they were set.
                if self._reads_attributes:
                    found = store.study_attributes(session, [self._study_id], "system")
                    self._storage.study_attributes = found[self._study_id]
                running = store.running(session, self._study_id) if self._reads_running else []
                rows = store.finished_after(session, self._study_id, self._seen)
            for row in rows:
                self._take(row)
                self.forget(row.id)
                self._seen = row.finish_seq
            known = {*self._storage.held, *(row.id for row in rows)}
            self._storage.elsewhere = {row.id: self._elsewhere(row) for row in running if row.id not in known}
            self._sampled = {row.id: row.sampled for row in running}
            if self._tried is not None:
                self._tried.see_running(running)

    def _take(self, row: Row[Any]) -> None:
        """Take in a finished trial."""
        self.bytes += TRIAL_BYTES + BYTES_OF_TEXT * (len(row.curve or "") + len(row.sampled or ""))
        if self._tried is not None:
            self._tried.take(row)
        trial = self._lessons.take(row)
        if self._judge is not None and trial is not None:
            feasible = all(amount <= 0 for amount in trial.constraints.values())
            curves = read_curves(row.curve, len(self._definition.objectives))
            self._judge.take(trial, curves, feasible=feasible)

    def _elsewhere(self, row: Row[Any]) -> FrozenTrial:
        """A running trial of another process, read anew only where it was sampled anew."""
        trial = self._storage.elsewhere.get(row.id)
        if trial is None or self._sampled.get(row.id) != row.sampled:
            trial = running_trial(row.id, row.number, loads(row.sampled or "{}"), self._space, {})
        return trial

    def ask(self, reservations: Sequence[Reservation]) -> list[Proposal]:
        """Hyperparameters for each reservation, in order: fixed, drawn and requested ones, and the family's defaults.

        A trial that was sampled by an earlier attempt keeps its values. Proposed trials count as running from here on.
        """
        with self._lock:
            again = [r.trial_id for r in reservations if r.hyperparameters is not None]
            attributes: dict[int, dict[str, Any]] = {}
            if again:
                with self._database.read() as session:
                    attributes = store.stored_system_attributes(session, again)
            self._storage.asking = True
            try:
                return [self._propose(r, attributes.get(r.trial_id, {})) for r in reservations]
            except BaseException:
                for reservation in reservations:
                    self.forget(reservation.trial_id)
                raise
            finally:
                self._storage.asking = False

    def _propose(self, reservation: Reservation, attributes: Mapping[str, Any]) -> Proposal:
        if reservation.hyperparameters is not None:
            sampled = dict(reservation.sampled or {})
            kept = of_new_attempt(attributes)
            self.adopt(reservation.trial_id, reservation.number, sampled, kept)
            return self._again(reservation, sampled, kept)
        requested = dict(reservation.requested or {})
        sampled, on_duplicate = self._draw_new(reservation, requested)
        attributes = kept_attributes(self._storage.held[reservation.trial_id].system_attrs)
        return self._proposal(
            reservation, complete(self._definition, sampled, requested, self._family), sampled, attributes, on_duplicate
        )

    def _again(self, reservation: Reservation, sampled: dict[str, Scalar], kept: dict[str, Any]) -> Proposal:
        """A trial that was sampled by an earlier attempt."""
        if self._tried is not None:
            self._tried.hold(reservation.trial_id, sampled)
        values = whole(self._definition.fixed, reservation.hyperparameters or {})
        return self._proposal(reservation, values, sampled, kept, "reuse" if self._duplicates == "reuse" else "train")

    def _proposal(
        self,
        reservation: Reservation,
        values: dict[str, Scalar],
        sampled: dict[str, Scalar],
        attributes: dict[str, Any],
        on_duplicate: Literal["train", "reuse", "redraw"],
    ) -> Proposal:
        return Proposal(
            reservation,
            values,
            sampled,
            attributes,
            *ancestry(attributes),
            None if self._duplicates == "allow" else identity(sampled),
            on_duplicate,
            varied(self._definition.fixed, values) if self._keeps_varied else None,
        )

    def _draw_new(
        self, reservation: Reservation, requested: Mapping[str, Scalar]
    ) -> tuple[dict[str, Scalar], Literal["train", "reuse", "redraw"]]:
        """The searched hyperparameters of a trial, drawn anew where they were tried; what if they were all the same."""
        sampled = self._draw_agreed(reservation, requested)
        if self._tried is None:
            return sampled, "reuse" if self._duplicates == "reuse" else "train"
        if sampled.keys() <= requested.keys():
            return self._hold(reservation, sampled), "train"  # as it was asked for
        for redraw in range(1, REDRAWS + 1):
            if not self._tried.has(reservation.trial_id, identity(sampled)):
                return self._hold(reservation, sampled), "redraw"
            sampled = self._draw_agreed(reservation, requested, redraw)
        seed = trial_seed(self._seed, reservation.number)
        left = None if requested else self._tried.left(reservation.trial_id, seed)
        if left is not None:
            return self._hold(reservation, left), "redraw"
        return self._hold(reservation, sampled), "train"

    def _hold(self, reservation: Reservation, sampled: dict[str, Scalar]) -> dict[str, Scalar]:
        """Note what a trial that is not to be repeated will train."""
        if self._tried is not None:
            self._tried.hold(reservation.trial_id, sampled)
        drawn = self._storage.held[reservation.trial_id]
        self.adopt(reservation.trial_id, reservation.number, sampled, drawn.system_attrs)
        return sampled

    def _draw_agreed(
        self, reservation: Reservation, requested: Mapping[str, Scalar], redraw: int = 0
    ) -> dict[str, Scalar]:
        """Draw a trial, again where another process' choice of parents came first."""
        sampled: dict[str, Scalar] = {}
        for _ in range(CLAIM_TRIES):
            sampled = self._draw(reservation, requested, redraw)
            if not self._storage.lost_claim:
                break
            self.sync()
        return sampled

    def _draw(self, reservation: Reservation, requested: Mapping[str, Scalar], redraw: int) -> dict[str, Scalar]:
        if isinstance(self._sampler, Pbt) and self._seen < self._sampler.needs_finished(reservation.number):
            self.sync()
        ordinal = reservation.number if reservation.ordinal is None else reservation.ordinal
        trial = running_trial(reservation.trial_id, reservation.number, {}, self._space, {ORDINAL_KEY: ordinal})
        self._storage.held[reservation.trial_id] = trial
        self._storage.lost_claim = False
        self._study._thread_local.cached_all_trials = None
        reseed(self._sampler, trial_seed(self._seed + redraw * REDRAW_SEED, reservation.number))
        fixed = {**self._definition.fixed, **{n: v for n, v in requested.items() if n in self._definition.fixed}}
        return draw(self._study, self._sampler, trial, self._space, fixed, requested)

    def adopt(
        self,
        trial_id: int,
        number: int,
        sampled: Mapping[str, Scalar],
        system_attributes: Mapping[str, Any],
        reported: Mapping[int, float | Sequence[float]] | None = None,
    ) -> None:
        """Take over a sampled trial: one that runs again, or one whose reports (by epoch) went to another process."""
        with self._lock:
            trial = running_trial(trial_id, number, sampled, self._space, dict(system_attributes))
            curve: Curve = {
                epoch: (values,) if isinstance(values, int | float) else tuple(values)
                for epoch, values in (reported or {}).items()
            }
            trial.intermediate_values = {epoch: values[0] for epoch, values in curve.items()}
            if self._judge is not None:
                self._judge.begin(trial, curve)
            self._storage.elsewhere.pop(trial_id, None)
            self._storage.held[trial_id] = trial

    def holds(self, trial_id: int) -> bool:
        """Whether the trial was asked for or adopted here and is not known to be over."""
        return trial_id in self._storage.held

    def report(self, trial_id: int, epoch: int, values: float | Sequence[float]) -> bool:
        """Whether to prune the trial, given its objectives' `values` at `epoch`, in their order (a number: of one).

        False for a trial that isn't held here (any longer), and for an epoch that was reported before.
        """
        if self._pruner is None and self._judge is None:
            return False
        with self._lock:
            trial = self._storage.held.get(trial_id)
            if trial is None:
                return False
            values = (values,) if isinstance(values, int | float) else values
            if self._judge is not None:
                return self._judge.report(trial, epoch, values)
            return self._report_one(trial, epoch, values[0])

    def _report_one(self, trial: FrozenTrial, epoch: int, value: float) -> bool:
        """Whether to prune a trial of one objective."""
        if self._pruner is None or epoch in trial.intermediate_values:
            return False
        trial.intermediate_values[epoch] = value
        if math.isnan(value):
            with warnings.catch_warnings():
                # NumPy's, about slices that are all NaN.
                warnings.simplefilter("ignore", RuntimeWarning)
                return self._pruner.prune(self._study, trial)
        return self._pruner.prune(self._study, trial)

    def system_attributes(self, trial_id: int) -> dict[str, Any]:
        """What the sampler and the pruner want remembered with the trial: to be written with its outcome."""
        with self._lock:
            trial = self._storage.held.get(trial_id)
            if trial is None:
                return {}
            judged = {} if self._judge is None else self._judge.system_attributes(trial_id)
            return kept_attributes(trial.system_attrs) | judged

    def ended(self, trial_id: int) -> None:
        """Forget a running trial that was recorded: in a deterministic study not before `sync` finds its end.

        The pruner then sees the same trials whenever the record is made, until the next generation is proposed.
        """
        if not (self._definition.training.deterministic and self._reads_finished):
            self.forget(trial_id)

    def forget(self, trial_id: int) -> None:
        """Forget a running trial that was recorded, given back or lost; `sync` brings it back as a finished one."""
        with self._lock:
            self._storage.held.pop(trial_id, None)
            if self._tried is not None:
                self._tried.forget(trial_id)
            if self._judge is not None:
                self._judge.forget(trial_id)

    def _claim(self, key: str, value: Any) -> Any:
        return self._database.run(
            lambda session: store.claim_study_attribute(session, self._study_id, "system", key, value)
        )
