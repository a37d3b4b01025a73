"""Trials: their states, why they fail, and what the sampler may learn from a failure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from app.domain.families import Scalar
from app.domain.json import dumps


class TrialState(StrEnum):
    """Optuna's states, by Optuna's names."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"

    @property
    def is_finished(self) -> bool:
        """Whether the state is final."""
        return self not in LIVE_STATES


LIVE_STATES = (TrialState.WAITING, TrialState.RUNNING)


class FailureReason(StrEnum):
    """Why a trial failed."""

    EXCEPTION = "EXCEPTION"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NON_FINITE = "NON_FINITE"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    LOST = "LOST"
    REFUSED = "REFUSED"


INFEASIBLE_REASONS = (FailureReason.OUT_OF_MEMORY, FailureReason.NON_FINITE, FailureReason.REFUSED)
"""Failures that say something about the hyperparameters: a sampler sees them as a violated constraint."""

BLAMELESS_REASONS = (FailureReason.LOST, FailureReason.CANCELLED)
"""Failures that say nothing about the trial: hidden from samplers, not counted against the study."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """A lease on a WAITING trial: it may be sampled, started and trained by the holder of `token`.

    `requested` are the hyperparameters that an enqueued trial was given; `hyperparameters` and `sampled` are set where
    an earlier attempt was sampled: such a trial runs again with the same values. `attempt` is the one that starts next.
    """

    trial_id: int
    number: int
    token: str
    attempt: int
    ordinal: int | None
    requested: dict[str, Scalar] | None = None
    hyperparameters: dict[str, Scalar] | None = None
    sampled: dict[str, Scalar] | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the sampler drew for a reservation: all hyperparameters of the trial, and the searched ones alone.

    `system_attributes` are what Optuna's sampler wants remembered with the trial (JSON values). A trial with a `parent`
    goes on from the state that the trial of this number left, with `first_epoch` epochs behind it. `identity` is the
    hash of `sampled` where the study doesn't just allow duplicates; `on_duplicate` says what becomes of the trial where
    another one with this identity was started before: it trains all the same, takes its result, or is drawn anew.
    """

    reservation: Reservation
    hyperparameters: dict[str, Scalar]
    sampled: dict[str, Scalar]
    system_attributes: dict[str, Any]
    parent: int | None = None
    first_epoch: int = 0
    identity: str | None = None
    on_duplicate: Literal["train", "reuse", "redraw"] = "train"
    varied: dict[str, Scalar] | None = None
    """What is kept of the hyperparameters, where the study's fixed ones are large; None: all of them."""
    text: str = field(init=False, repr=False, compare=False)
    """The hyperparameters that are kept, as JSON, written out before the transaction that stores them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", dumps(self.hyperparameters if self.varied is None else self.varied))


Curve = tuple[tuple[float, ...], ...]
"""For each epoch the epoch, then the values of the objectives."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, as the holder of `token` records it.

    `values` follow the objectives, `curve` has them by epoch (the first one alone where the others are not known),
    `metrics` are the selected epoch's (or the last's). `violations` are positive where a constraint is broken.
    `test_metrics` are scores on the test part, sealed until the study is over.
    """

    trial_id: int
    token: str
    state: TrialState
    values: tuple[float, ...] | None = None
    metrics: dict[str, float] | None = None
    selected_epoch: int | None = None
    epochs: int = 0
    curve: Curve = ()
    violations: tuple[float, ...] = ()
    reason: FailureReason | None = None
    error_code: str | None = None
    error_message: str | None = None
    log: str | None = None
    device_seconds: float = 0.0
    system_attributes: dict[str, Any] = field(default_factory=dict)
    artifacts: tuple[ArtifactPointer, ...] = ()
    test_metrics: dict[str, float] = field(default_factory=dict)
    checkpoint: CheckpointPointer | None = None
    """The state that the trial leaves to those that go on from it."""

    @property
    def feasible(self) -> bool | None:
        """Whether a COMPLETE trial keeps all constraints; None for the others."""
        return all(v <= 0 for v in self.violations) if self.state is TrialState.COMPLETE else None


@dataclass(frozen=True, slots=True)
class ArtifactPointer:
    """A file that an attempt wrote below the artifact location, to be published with its outcome."""

    name: str
    path: str
    media_type: str
    size_bytes: int
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckpointPointer:
    """A trial's whole state after `epochs` of its epochs, as an attempt wrote it below the artifact location."""

    path: str
    epochs: int
    size_bytes: int
