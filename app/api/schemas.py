"""The resources as the contract shows them. Clients must ignore fields that they don't know."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, WithJsonSchema

from app.domain.space import Value
from app.domain.study import Budget, Execution, StudyDefinition, StudyState
from app.domain.trial import FailureReason, TrialState

Number = float | Literal["NaN", "Infinity", "-Infinity"]
HyperparameterValue = bool | int | float | str
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Values = dict[str, Number]


class Progress(BaseModel):
    """Trials by state, the budget of trials, and the seconds that devices spent."""

    waiting: int
    running: int
    complete: int
    pruned: int
    fail: int
    total_budget: int | None
    device_seconds: float


class Best(BaseModel):
    """The best trial of a study with one objective."""

    number: int
    values: Values


class StudyWarning(BaseModel):
    """Something about a study that its owner should know: what kind it is, in words, and where in the definition."""

    code: str
    message: str
    loc: list[str | int]


class Study(BaseModel):
    """A study: its definition, state and progress."""

    id: str
    project: str
    name: str
    state: StudyState
    state_reason: str | None = Field(description="The limit or cause that ended it, in words.")
    pending_reason: str | None = Field(description="Why nothing runs now, in words.")
    revision: int = Field(description="Rises with each change by PATCH; progress never changes it.")
    definition: dict[str, Any] = Field(description="As posted, all defaults filled in.")
    progress: Progress
    best: Best | None
    warnings: list[StudyWarning] = Field(description="What was found out about it while it was trained.")
    created_by: str | None
    created_at: Time
    started_at: Time | None
    finished_at: Time | None


def _patch_of(section: type[BaseModel], *names: str) -> dict[str, Any]:
    """The JSON Schema of a merge patch of these fields of a section."""
    fields = section.model_json_schema()["properties"]
    changed = {name: {"anyOf": [fields[name], {"type": "null"}]} for name in names}
    return {"anyOf": [{"type": "object", "properties": changed, "additionalProperties": False}, {"type": "null"}]}


_LABELS = {"anyOf": [{"type": "object", "additionalProperties": {"type": ["string", "null"]}}, {"type": "null"}]}


class StudyChanges(BaseModel):
    """A merge patch of a study: what is left out stays, null gives the default."""

    model_config = {"extra": "forbid"}

    description: str | None = None
    labels: Annotated[dict[str, Any] | None, WithJsonSchema(_LABELS)] = None
    budget: Annotated[dict[str, Any] | None, WithJsonSchema(_patch_of(Budget, *Budget.model_fields))] = None
    execution: Annotated[dict[str, Any] | None, WithJsonSchema(_patch_of(Execution, "parallel_trials", "priority"))] = (
        Field(default=None, description="`parallel_trials` and `priority` alone.")
    )


class Memory(BaseModel):
    """What trials are expected to hold in a device's memory, in MB (10⁶ bytes)."""

    largest_trial_mb: float = Field(description="The largest trial of the space, alone.")
    dataset_mb: float = Field(description="The data set, which the trials of a worker share.")


class Validation(BaseModel):
    """What a definition means: nothing is stored."""

    definition: StudyDefinition = Field(description="All defaults filled in.")
    structural: list[str] = Field(description="Hyperparameters whose change needs another compiled program.")
    runtime: list[str] = Field(description="Hyperparameters that don't.")
    stackable: bool = Field(description="Whether several trials may train in one program.")
    warnings: list[str]
    memory: Memory | None = Field(description="Null for families that are not sized ahead of their trials.")


class TrialError(BaseModel):
    """Why a trial failed."""

    code: str
    message: str


class Artifact(BaseModel):
    """A file of a trial."""

    name: str
    media_type: str
    size_bytes: int
    attempt: int
    details: dict[str, Any] = Field(description="Such as `classes`: the order of a model's outputs.")
    created_at: Time


class Trial(BaseModel):
    """A trial of a study."""

    study_id: str
    number: int
    state: TrialState
    reason: FailureReason | None
    feasible: bool | None = Field(description="Whether a COMPLETE trial keeps all constraints.")
    attempt: int
    hyperparameters: dict[str, HyperparameterValue] = Field(description="All, fixed ones too.")
    sampled: dict[str, HyperparameterValue] = Field(description="Searched ones alone.")
    values: Values | None = Field(description="By the objectives' metrics.")
    metrics: Values | None = Field(description="Of the selected epoch, else of the last.")
    selected_epoch: int | None
    epochs: int
    parent: int | None = Field(description="The trial whose weights it went on from (population-based training).")
    first_epoch: int = Field(description="How many epochs its ancestors trained; its own count from 0.")
    reused_from: int | None = Field(description="The trial whose result this one has; it was not trained itself.")
    worker_id: str | None
    device: str | None
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    duration_seconds: float | None
    error: TrialError | None
    artifacts: list[Artifact]


class NewTrial(BaseModel):
    """A trial to enqueue: what is left out is drawn by the sampler."""

    model_config = {"extra": "forbid"}

    hyperparameters: dict[str, Value] = {}


class EpochMetrics(BaseModel):
    """What one attempt reported for one epoch."""

    epoch: int
    attempt: int
    metrics: Values
    at: Time


class RunningTrial(BaseModel):
    """A trial that a worker holds."""

    study_id: str
    number: int


class Worker(BaseModel):
    """A worker process and what it offers."""

    id: str
    host: str
    pid: int
    state: str
    live: bool = Field(description="Whether it was heard of in the last seconds.")
    drain_requested: bool
    device: str
    memory_mb: float | None = Field(description="What its device has, in MB (10⁶ bytes).")
    families: list[str]
    labels: dict[str, str]
    version: str
    trials: list[RunningTrial]
    started_at: Time
    last_heartbeat_at: Time


class FamilyMetricInfo(BaseModel):
    """A metric of a family's own, reported by epoch as `name` and `val_name`."""

    name: str
    direction: str
    description: str


class FamilyInfo(BaseModel):
    """A model family; `hyperparameters` is a JSON Schema of fixed values.

    `workers` is how many live ones train it; `layers` are those that a list may have, where models are given by lists.
    """

    name: str
    version: str
    description: str
    needs_dataset: bool
    tasks: list[str]
    input_kind: str
    stackable: bool
    structural: list[str]
    runtime: list[str]
    hyperparameters: dict[str, Any]
    built_in: bool
    workers: int
    metrics: list[FamilyMetricInfo]
    layers: dict[str, Any] | None


class AlgorithmInfo(BaseModel):
    """A sampler or a pruner; `options` is a JSON Schema."""

    model_config = {"extra": "allow"}

    name: str
    description: str = ""
    options: dict[str, Any] = {}


class EventItem(BaseModel):
    """An event: these fields and those of its type."""

    model_config = {"extra": "allow"}

    omits_fixed: bool | None = Field(
        default=None,
        description="True where `hyperparameters` leaves out those that the study's definition fixes: they are large.",
    )

    seq: int
    type: str
    at: Time
    study_id: str
    trial: int | None = None


class StudyPage(BaseModel):
    """A page of studies."""

    items: list[Study]
    next_cursor: str | None


class TrialPage(BaseModel):
    """A page of trials."""

    items: list[Trial]
    next_cursor: str | None


class MetricPage(BaseModel):
    """The metrics of one attempt, by epoch."""

    items: list[EpochMetrics]
    next_cursor: str | None
    pruned_at: Time | None = Field(default=None, description="When the service's retention deleted them.")


class ArtifactPage(BaseModel):
    """The files of a trial."""

    items: list[Artifact]
    next_cursor: str | None
    pruned_at: Time | None = Field(default=None, description="When the service's retention deleted them.")


class WorkerPage(BaseModel):
    """A page of workers."""

    items: list[Worker]
    next_cursor: str | None


class FamilyPage(BaseModel):
    """All families."""

    items: list[FamilyInfo]
    next_cursor: str | None


class AlgorithmPage(BaseModel):
    """All samplers, or all pruners."""

    items: list[AlgorithmInfo]
    next_cursor: str | None


class StudyReset(BaseModel):
    """Events of a study are gone."""

    first_seq: int = Field(description="The first one that there is, whatever number was last.")


class ProjectReset(BaseModel):
    """Events of a project are gone."""

    reason: Literal["retention", "restore"]
    studies: list[str] = Field(description="Whose events the retention took; none after a restore: all may differ.")


class EventPage(BaseModel):
    """Events in the order of the log."""

    items: list[EventItem]
    next_cursor: str | None
    reset: StudyReset | ProjectReset | None = Field(
        default=None, description="Events are missing before these: what a stream tells by an event `reset`."
    )


class Importance(BaseModel):
    """How much a hyperparameter explains, of a sum of 1."""

    hyperparameter: str
    importance: float


class Importances(BaseModel):
    """Importances, the largest first."""

    items: list[Importance]
    next_cursor: str | None
    method: str
    metric: str
    trials: int = Field(description="COMPLETE trials that were looked at.")
    reason: str | None = Field(description="Why there are no items, in words.")


FIGURE: dict[str, Any] = {
    "type": "object",
    "required": ["data", "layout"],
    "properties": {"data": {"type": "array", "items": {"type": "object"}}, "layout": {"type": "object"}},
}
"""A Plotly figure, as plotly.js takes it."""


class Health(BaseModel):
    """Liveness or readiness."""

    status: str
