"""Sampled trials that wait for a slot, by structural signature. They hold leases and count as parallel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.families import FAMILIES, Scalar
from app.domain.space import Categorical, Float, Int
from app.domain.study import StudyDefinition, trial_seed
from app.domain.trial import Proposal

Signature = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class StudyRef:
    """A study as the worker needs it: its ids and its definition at one revision."""

    study_id: int
    public_id: str
    definition: StudyDefinition

    @property
    def runtime_choices(self) -> dict[str, list[Scalar]]:
        """The values that each runtime categorical may take in the study: one compiled program serves them all."""
        found: dict[str, list[Scalar]] = {}
        for declared in FAMILIES[self.definition.model.family].hyperparameters:
            if declared.kind != "categorical" or declared.structural or declared.default is None:
                continue
            given = self.definition.hyperparameters.get(declared.name, declared.default)
            found[declared.name] = list(dict.fromkeys(_possible(given, declared.default)))
        return found


@dataclass(frozen=True, slots=True)
class PooledTrial:
    """A sampled reservation of a study."""

    study: StudyRef
    proposal: Proposal

    @property
    def seed(self) -> int:
        """What drives the trial's weights, shuffling and dropout: the same for every worker and attempt."""
        return trial_seed(self.study.definition.training.seed, self.proposal.reservation.number)

    @property
    def is_retry(self) -> bool:
        """Whether an earlier attempt was started."""
        return self.proposal.reservation.attempt > 1

    @property
    def signature(self) -> Signature:
        """What trials of one compiled program have in common: the study and all structural hyperparameters."""
        family = FAMILIES[self.study.definition.model.family]
        structural: list[tuple[str, Scalar]] = []
        for name, value in sorted(self.proposal.hyperparameters.items()):
            declared = family.declared(name)
            if declared is not None and declared.structural:
                structural.append((name, value))
        return (self.study.study_id, *structural)


def _possible(given: Float | Int | Categorical | Scalar, default: Scalar) -> list[Scalar]:
    """The values that a categorical may take: a conditional one has its default where it isn't drawn."""
    if isinstance(given, Categorical):
        return [*given.choices, default] if given.when else list(given.choices)
    return [] if isinstance(given, Float | Int) else [given]


class Pool:
    """First in, first out; a stack takes the oldest trial and others of its signature."""

    def __init__(self) -> None:
        self._trials: list[PooledTrial] = []

    def __len__(self) -> int:
        return len(self._trials)

    def add(self, trials: list[PooledTrial]) -> None:
        """Put sampled trials at the end."""
        self._trials += trials

    def take(self, families: Sequence[str]) -> list[PooledTrial]:
        """The oldest trial of these families and others of its signature, as many as its family trains together.

        None where there is none: a trainer that has just been replaced can't train every family yet. A trial that was
        tried before runs alone: were it what broke its trainer, it must not take others along.
        """
        first = next((t for t in self._trials if t.study.definition.model.family in families), None)
        if first is None:
            return []
        taken = [first]
        if not first.is_retry:
            members = FAMILIES[first.study.definition.model.family].stack_members
            taken = [t for t in self._trials if not t.is_retry and t.signature == first.signature][:members]
        self._trials = [t for t in self._trials if t not in taken]
        return taken

    def clear(self) -> list[PooledTrial]:
        """Empty the pool; what was in it."""
        trials, self._trials = self._trials, []
        return trials
