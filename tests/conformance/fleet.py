"""Workers without processes: several views of one study, taking turns, with trials that finish out of order."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.api.validation import sample_limit
from app.domain.study import StudyDefinition
from app.domain.trial import FailureReason, Outcome, Proposal, TrialState
from app.store import leases, lifecycle, recording
from app.store.engine import Database
from app.tuning.view import StudyView

TTL_S = 600.0
EPOCHS = 6

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="gp needs torch")
GP = pytest.param("gp", marks=[needs_torch, pytest.mark.slow])
"""The sampler that is slow, and not everywhere."""

SPACE: dict[str, Any] = {
    "x0": {"type": "float", "low": -1.0, "high": 1.0},
    "x1": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    "x2": {"type": "int", "low": 1, "high": 64},
    "kind": {"type": "categorical", "choices": ["a", "b", "c"]},
    "x3": {"type": "float", "low": 0.0, "high": 1.0, "when": {"kind": ["b", "c"]}},
}
GRID: dict[str, Any] = {
    "x0": {"type": "float", "low": -1.0, "high": 1.0, "step": 0.25},
    "x2": {"type": "int", "low": 1, "high": 9, "step": 2},
    "kind": {"type": "categorical", "choices": ["a", "b"]},
}

Judge = Callable[[Mapping[str, Any]], float | tuple[float, ...] | FailureReason]
"""The last epoch's value of a trial, or those of all objectives, or why it fails."""


def definition(
    sampler: str = "tpe",
    pruner: str = "none",
    *,
    options: Mapping[str, Any] | None = None,
    pruner_options: Mapping[str, Any] | None = None,
    space: Mapping[str, Any] | None = None,
    objectives: int = 1,
    trials: int = 40,
    duplicates: str = "allow",
) -> StudyDefinition:
    """A study of the family `external`, so that any names go."""
    metrics = [{"metric": f"value{i}", "direction": "minimize"} for i in range(objectives)]
    return StudyDefinition.model_validate(
        {
            "name": "fleet",
            "model": {"family": "external"},
            "hyperparameters": dict(space or SPACE),
            "training": {"epochs": EPOCHS},
            "objectives": metrics,
            "sampler": {"name": sampler, "options": dict(options or {})},
            "pruner": {"name": pruner, "options": dict(pruner_options or {})},
            "budget": {"trials": trials},
            "execution": {"duplicates": duplicates},
        }
    )


def bowl(values: Mapping[str, Any]) -> float:
    """Smallest at x0 = 0.3, small x2, kind b."""
    return float((values["x0"] - 0.3) ** 2 + values["x2"] / 100 + (0.0 if values["kind"] == "b" else 0.5))


@dataclass
class Running:
    """A started trial, and the epochs that it has reported."""

    proposal: Proposal
    epoch: int = 0
    curve: list[tuple[float, ...]] = field(default_factory=list)


class Fleet:
    """`size` workers on one study. `seed` decides who does what when; the proposals must not depend on who asks."""

    def __init__(
        self,
        database: Database,
        study: StudyDefinition,
        *,
        size: int = 4,
        project: str = "default",
        judge: Judge = bowl,
    ) -> None:
        self.database, self.definition, self.judge = database, study, judge
        with database.write() as session:
            row = lifecycle.create_study(
                session, study, project=project, created_by=None, sample_limit=sample_limit(study)
            )
            self.study_id, self.public_id = row.id, row.public_id
        self.views = [StudyView(database, self.study_id, study) for _ in range(size)]
        self.running: list[dict[int, Running]] = [{} for _ in range(size)]
        self.proposals: dict[int, Proposal] = {}
        self.states: dict[int, TrialState] = {}
        self.reused: dict[int, Proposal] = {}
        """The proposals that took another trial's result."""

    def ask(self, worker: int, count: int) -> list[Proposal]:
        """Reserve, sample and start up to `count` trials."""
        view, name = self.views[worker], f"w{worker}"
        view.sync()
        with self.database.write() as session:
            reservations = leases.reserve(session, self.study_id, name, count, TTL_S)
        proposals = view.ask(reservations)
        with self.database.write() as session:
            started = leases.start(session, self.study_id, proposals, name, "cpu", TTL_S)
        others = [p for p in proposals if p.reservation.trial_id not in started]
        if others:
            self.let_go(worker, others)
        for proposal in proposals:
            if proposal in others:
                continue
            self.proposals[proposal.reservation.number] = proposal
            self.running[worker][proposal.reservation.trial_id] = Running(proposal)
        return proposals

    def let_go(self, worker: int, proposals: list[Proposal]) -> None:
        """Give back what didn't start: its study's rule for duplicates said so."""
        pairs = [(p.reservation.trial_id, p.reservation.token) for p in proposals]
        assert self.definition.execution.duplicates != "allow"
        with self.database.write() as session:
            released = leases.release(session, self.study_id, pairs, "RELEASED")
        for proposal in proposals:
            self.views[worker].forget(proposal.reservation.trial_id)
            if proposal.reservation.trial_id not in released:
                self.reused[proposal.reservation.number] = proposal

    def advance(self, worker: int, trial_id: int) -> None:
        """One more epoch of a trial, and its end where it is pruned, fails or was at its last one."""
        trial = self.running[worker][trial_id]
        final = self.judge(trial.proposal.hyperparameters)
        if isinstance(final, FailureReason):
            self.finish(worker, trial_id, TrialState.FAIL, reason=final)
            return
        if not isinstance(final, tuple):
            final = (final, *([-final] * (len(self.definition.objectives) - 1)))
        values = tuple(value + (EPOCHS - 1 - trial.epoch) / EPOCHS for value in final)
        trial.curve.append((trial.epoch, *values))
        prune = self.views[worker].report(trial_id, trial.epoch, values)
        trial.epoch += 1
        if prune:
            self.finish(worker, trial_id, TrialState.PRUNED)
        elif trial.epoch == EPOCHS:
            self.finish(worker, trial_id, TrialState.COMPLETE, values=values)

    def finish(self, worker: int, trial_id: int, state: TrialState, **fields: Any) -> None:
        """Record a trial's end."""
        trial, view = self.running[worker].pop(trial_id), self.views[worker]
        reservation = trial.proposal.reservation
        outcome = Outcome(
            trial_id,
            reservation.token,
            state,
            curve=tuple(trial.curve),
            system_attributes=view.system_attributes(trial_id),
            **fields,
        )
        with self.database.write() as session:
            assert recording.finish(session, self.study_id, [outcome], [], TTL_S).trial_ids == {trial_id}
        view.forget(trial_id)
        self.states[reservation.number] = state

    def run(self, seed: int = 0, in_flight: int = 3) -> None:
        """Until nothing is left to reserve and nothing runs."""
        turns = random.Random(seed)
        exhausted = False
        while not exhausted or any(self.running):
            worker = turns.randrange(len(self.views))
            mine = self.running[worker]
            if not exhausted and len(mine) < in_flight and turns.random() < 0.5:
                exhausted = not self.ask(worker, turns.randint(1, in_flight - len(mine))) and not any(self.running)
            elif mine:
                self.advance(worker, turns.choice(sorted(mine)))

    def sampled(self) -> list[dict[str, Any]]:
        """What was proposed, by trial number."""
        return [self.proposals[number].sampled for number in sorted(self.proposals)]
