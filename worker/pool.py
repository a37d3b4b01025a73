"""Sampled trials that wait for a slot, by structural signature. They hold leases and count as parallel."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from app.domain.families import Family, Scalar
from app.domain.registry import BUILT_IN
from app.domain.space import Categorical, Float, Int, axis_size
from app.domain.study import StudyDefinition, trial_seed
from app.domain.trial import Proposal

LONGEST_WAIT_S = 10.0
"""A trial that has waited for so long comes before those of a larger group, and ends the refilling of a stack."""
TURN_S = 2.0
"""How long a stack is refilled at least while a trial of another study of its priority waits: studies take turns."""
REMEMBERED_STUDIES = 1000
"""Studies whose last turn is remembered."""
UNBOUNDED_TRIALS = 1000
"""What a study without a budget of trials is taken to want."""

Signature = tuple[object, ...]


@dataclass(frozen=True)
class StudyRef:
    """A study as the worker needs it: its ids and its definition at one revision.

    `declared` is the family that the worker knows it by; a built-in one where it isn't given.
    """

    study_id: int
    public_id: str
    definition: StudyDefinition
    declared: Family | None = None

    @cached_property
    def family(self) -> Family:
        """The family that it trains.

        Raises:
            LookupError: there is none of that name and version.
        """
        family = self.declared or BUILT_IN.of(self.definition.model, self.definition.hyperparameters)
        if family is None:
            raise LookupError(f"Expected a family that is known here. Received: {self.definition.model!r}")
        return family

    @cached_property
    def runtime_choices(self) -> dict[str, list[Scalar]]:
        """The values that each runtime categorical may take in the study: one compiled program serves them all."""
        found: dict[str, list[Scalar]] = {}
        for declared in self.family.hyperparameters:
            if declared.kind != "categorical" or declared.structural or declared.default is None:
                continue
            given = self.definition.hyperparameters.get(declared.name, declared.default)
            found[declared.name] = list(dict.fromkeys(_possible(given, declared.default)))
        return found

    @cached_property
    def structures(self) -> int:
        """How many structural signatures its search space has."""
        count = 1
        for name, parameter in self.definition.searched.items():
            declared = self.family.declared(name)
            if declared is not None and declared.structural:
                count *= axis_size(parameter)
        return count

    def expected(self, number: int) -> int:
        """How many trials of one signature are likely to come from trial `number` on, where all are as likely."""
        left = (self.definition.budget.trials or number + UNBOUNDED_TRIALS) - number
        return max(1, left // self.structures)


@dataclass(frozen=True)
class PooledTrial:
    """A sampled reservation of a study; `since` is the monotonic time of its sampling."""

    study: StudyRef
    proposal: Proposal
    since: float = field(default_factory=time.monotonic)

    @property
    def trial_id(self) -> int:
        """The id of its row."""
        return self.proposal.reservation.trial_id

    @property
    def token(self) -> str:
        """The token of its lease."""
        return self.proposal.reservation.token

    @property
    def seed(self) -> int:
        """What drives the trial's weights, shuffling and dropout: the same for every worker and attempt."""
        return trial_seed(self.study.definition.training.seed, self.proposal.reservation.number)

    @property
    def priority(self) -> int:
        """Its study's."""
        return self.study.definition.execution.priority

    @property
    def is_retry(self) -> bool:
        """Whether an earlier attempt was started."""
        return self.proposal.reservation.attempt > 1

    @cached_property
    def signature(self) -> Signature:
        """What trials of one compiled program have in common: the study and all structural hyperparameters."""
        structural: list[tuple[str, Scalar]] = []
        for name, value in sorted(self.proposal.hyperparameters.items()):
            declared = self.study.family.declared(name)
            if declared is not None and declared.structural:
                structural.append((name, value))
        return (self.study.study_id, *structural)


def _possible(given: Float | Int | Categorical | Scalar, default: Scalar) -> list[Scalar]:
    """The values that a categorical may take: a conditional one has its default where it isn't drawn."""
    if isinstance(given, Categorical):
        return [*given.choices, default] if given.when else list(given.choices)
    return [] if isinstance(given, Float | Int) else [given]


class Pool:
    """Trials in the order of their sampling, of which stacks take the largest group of one signature.

    A trial that was tried before runs alone: were it what broke its trainer, it must not take others along.
    """

    def __init__(self) -> None:
        self._trials: list[PooledTrial] = []
        self._stacks = 0
        self._last_stack: dict[int, int] = {}
        """Which of all stacks a study's last one was: studies take turns."""

    def __len__(self) -> int:
        return len(self._trials)

    def add(self, trials: Sequence[PooledTrial]) -> None:
        """Put sampled trials at the end."""
        self._trials += trials

    def take(self, families: Sequence[str], width: Callable[[PooledTrial], int]) -> list[PooledTrial]:
        """The trials of the next stack, of these families: a retried one, one that has waited long, else the most.

        Of the studies of the highest priority that one alone is looked at whose last stack was the longest ago.

        `width` tells how many of a trial's signature may train together. None where there is none: a trainer that has
        just been replaced can't train every family yet.
        """
        ready = [t for t in self._trials if t.study.definition.model.family in families]
        if not ready:
            return []
        highest = max(t.priority for t in ready)
        ready = [t for t in ready if t.priority == highest]
        turn = min((t.study.study_id for t in ready), key=lambda study: self._last_stack.get(study, -1))
        self._note_stack(turn)
        ready = [t for t in ready if t.study.study_id == turn]
        first = ready[0]
        if not first.is_retry and time.monotonic() - first.since < LONGEST_WAIT_S:
            sizes = Counter(t.signature for t in ready if not t.is_retry)
            # The largest; of equal ones the oldest.
            first = max((t for t in ready if not t.is_retry), key=lambda t: sizes[t.signature])
        if first.study.definition.generation is not None:
            # A deterministic study's stacks follow one another by number, however long any has waited.
            first = next(t for t in ready if t.study.study_id == first.study.study_id)
        taken = [first] if first.is_retry else self._like(first.signature)[: max(1, width(first))]
        self._remove(taken)
        return taken

    def take_more(self, like: PooledTrial, count: int) -> list[PooledTrial]:
        """Up to `count` trials that may join a stack of one `like` them.

        None while another of as high a priority waits for too long, or one of a higher priority waits at all.
        """
        now = time.monotonic()
        for other in self._trials:
            patience_s = LONGEST_WAIT_S if other.study.study_id == like.study.study_id else TURN_S
            waits_long = other.priority == like.priority and now - other.since >= patience_s
            if other.signature != like.signature and (waits_long or other.priority > like.priority):
                return []
        taken = self._like(like.signature)[: max(0, count)]
        self._remove(taken)
        return taken

    def count(self, signature: Signature) -> int:
        """How many trials wait that may join a stack of this signature."""
        return len(self._like(signature))

    def by_signature(self) -> list[PooledTrial]:
        """One trial of each signature that waits, those of the largest groups first."""
        sizes = Counter(t.signature for t in self._trials)
        examples = {t.signature: t for t in self._trials}
        return [examples[signature] for signature, _ in sizes.most_common()]

    def clear(self) -> list[PooledTrial]:
        """Empty the pool; what was in it."""
        trials, self._trials = self._trials, []
        return trials

    def _note_stack(self, study_id: int) -> None:
        self._stacks += 1
        self._last_stack[study_id] = self._stacks
        if len(self._last_stack) > REMEMBERED_STUDIES:
            del self._last_stack[min(self._last_stack, key=lambda study: self._last_stack[study])]

    def _like(self, signature: Signature) -> list[PooledTrial]:
        return [t for t in self._trials if not t.is_retry and t.signature == signature]

    def _remove(self, taken: Sequence[PooledTrial]) -> None:
        ids = {t.trial_id for t in taken}
        self._trials = [t for t in self._trials if t.trial_id not in ids]
