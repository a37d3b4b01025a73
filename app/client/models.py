"""What the service answers with. Fields that this version doesn't know are kept, never refused."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

FINAL_STATES = frozenset({"COMPLETED", "STOPPED", "CANCELLED", "FAILED"})
"""States of a study in which nothing more happens (a larger budget may reopen a COMPLETED one)."""


class Answer(BaseModel):
    """A part of an answer. Non-finite numbers, strings in JSON, are floats here."""

    model_config = ConfigDict(extra="allow", frozen=True, ser_json_inf_nan="strings", protected_namespaces=())


class Progress(Answer):
    """How many trials there are of each state; `total_budget` is None where only time limits the study."""

    waiting: int = 0
    running: int = 0
    complete: int = 0
    pruned: int = 0
    fail: int = 0
    total_budget: int | None = None
    device_seconds: float = 0.0

    @property
    def finished(self) -> int:
        """Trials that are over, whatever their end."""
        return self.complete + self.pruned + self.fail


class Best(Answer):
    """The number and the values of the best trial."""

    number: int
    values: dict[str, float | None] = {}


class Study(Answer):
    """A study: its definition with all defaults, its state and its progress."""

    id: str
    project: str = "default"
    name: str
    state: str
    state_reason: str | None = None
    pending_reason: str | None = None
    revision: int = 1
    definition: dict[str, Any] = {}
    progress: Progress = Progress()
    best: Best | None = None
    warnings: list[dict[str, Any]] = []
    created_by: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in FINAL_STATES


class Artifact(Answer):
    """A file that a trial left, such as `model.keras`."""

    name: str
    size_bytes: int | None = None


class Trial(Answer):
    """A trial: `hyperparameters` holds all values, `sampled` those that were searched."""

    study_id: str
    number: int
    state: str
    reason: str | None = None
    feasible: bool | None = None
    attempt: int | None = None
    hyperparameters: dict[str, Any] = {}
    sampled: dict[str, Any] = {}
    values: dict[str, float | None] | None = None
    metrics: dict[str, float | None] | None = None
    selected_epoch: int | None = None
    epochs: int | None = None
    parent: int | None = None
    first_epoch: int = 0
    reused_from: int | None = None
    worker_id: str | None = None
    device: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_seconds: float | None = None
    error: dict[str, Any] | None = None
    artifacts: list[Any] = []


class MetricPoint(Answer):
    """The metrics of one epoch of one attempt."""

    epoch: int
    attempt: int = 1
    metrics: dict[str, float | None]
    at: datetime | None = None


class Validation(Answer):
    """A definition with all defaults filled in, and what it means for training."""

    definition: dict[str, Any]
    structural: list[str] = []
    runtime: list[str] = []
    stackable: bool = False
    warnings: list[Any] = []
    memory: dict[str, float] | None = None


class Named(Answer):
    """A family, sampler or pruner that a definition may name; its schema is among the further fields."""

    name: str


class Worker(Answer):
    """A worker: where it is in its life, its device and what it can train."""

    id: str
    state: str
    device: str | None = None
    memory_mb: float | None = None
    families: list[Any] = []


class Lease(Answer):
    """The right to report on a trial, until it expires unrenewed."""

    token: str
    expires_at: datetime


class AskedTrial(Answer):
    """A trial that was taken to be trained."""

    number: int
    attempt: int = 1
    hyperparameters: dict[str, Any]
    lease: Lease


class Asked(Answer):
    """The trials that were asked for; where none came, `retry_after_seconds` says when to ask again, if at all."""

    items: list[AskedTrial]
    study_state: str
    retry_after_seconds: float | None = None


class Alive(Answer):
    """A renewed lease, and whether the trial is to end now with what it has."""

    expires_at: datetime
    should_stop: bool


class Verdict(Answer):
    """Whether to give a trial up (`should_prune`), or to end it now with what it has (`should_stop`)."""

    should_prune: bool
    should_stop: bool


class Event(Answer):
    """One event of a study's log, numbered from 1. Types that this version doesn't know stay plain events."""

    seq: int
    type: str
    at: datetime | None = None
    study_id: str = ""


class StudyEvent(Event):
    """The study changed its state. `study.finished` also tells `progress` and `best`."""

    state: str
    state_reason: str | None = None
    progress: Progress | None = None
    best: Best | None = None


class TrialEvent(Event):
    """Something happened to trial `trial`."""

    trial: int


class TrialStarted(TrialEvent):
    """A trial was enqueued, or an attempt began (then with the worker and the device)."""

    hyperparameters: dict[str, Any] = {}
    attempt: int | None = None
    worker_id: str | None = None
    device: str | None = None
    parent: int | None = None
    first_epoch: int = 0


class TrialResumed(TrialEvent):
    """An attempt goes on from an earlier one's checkpoint, with `epoch`."""

    attempt: int
    epoch: int


class TrialMetrics(TrialEvent):
    """One epoch's metrics."""

    attempt: int = 1
    epoch: int
    metrics: dict[str, float | None]


class TrialBest(TrialEvent):
    """The trial became the best."""

    values: dict[str, float | None] = {}
    hyperparameters: dict[str, Any] = {}


class TrialFinished(TrialEvent):
    """A trial is over."""

    state: str
    reason: str | None = None
    feasible: bool | None = None
    values: dict[str, float | None] | None = None
    duration_seconds: float | None = None
    reused_from: int | None = None


class TrialTested(TrialEvent):
    """The study is over, and this is its best trial: its scores on the test part, which nobody saw before."""

    metrics: dict[str, float | None] = {}


class TrialRetried(TrialEvent):
    """A trial lost its worker or failed, and will run again as `attempt`."""

    attempt: int | None = None
    reason: str | None = None


class Reset(Event):
    """What comes next is `first_seq`, whatever was last: events before it are gone, by retention or by a restore.

    `seq` is the number before it. It may lead back: what was told beyond is no longer so.
    """

    first_seq: int = Field(ge=1)


EVENT_TYPES: dict[str, type[Event]] = {
    "study.created": StudyEvent,
    "study.started": StudyEvent,
    "study.paused": StudyEvent,
    "study.resumed": StudyEvent,
    "study.stopping": StudyEvent,
    "study.updated": StudyEvent,
    "study.finished": StudyEvent,
    "study.restored": StudyEvent,
    "trial.enqueued": TrialStarted,
    "trial.started": TrialStarted,
    "trial.resumed": TrialResumed,
    "trial.metrics": TrialMetrics,
    "trial.best": TrialBest,
    "trial.finished": TrialFinished,
    "trial.tested": TrialTested,
    "trial.retried": TrialRetried,
}
"""The class of each event type."""


def event_of(kind: str, data: dict[str, Any]) -> Event:
    """The typed event of an `event:` name and its `data:`."""
    if kind == "reset":
        return Reset.model_validate({"seq": int(data["first_seq"]) - 1, "type": "reset", **data})
    return EVENT_TYPES.get(kind, Event).model_validate({"type": kind, **data})


class Importance(Answer):
    """How much a hyperparameter explains, of a sum of 1."""

    hyperparameter: str
    importance: float


class Importances(Answer):
    """Importances, the largest first; `reason` says why there are none."""

    items: list[Importance] = []
    method: str = ""
    metric: str = ""
    trials: int = 0
    reason: str | None = None
