"""Study definitions as a user posts them, and the states that a study goes through."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from app.domain.direction import Direction, is_better, maximizes, sign
from app.domain.families import Scalar
from app.domain.space import Categorical, FiniteFloat, Float, Int, Parameter, Value

Name = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Label = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
LabelValue = Annotated[StrictStr, Field(max_length=255)]
MetricName = Annotated[StrictStr, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
Count = Annotated[StrictInt, Field(ge=1, le=10**9)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=10**9, allow_inf_nan=False)]
Seed = Annotated[StrictInt, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A part of a definition: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_WHERE_GIVEN = Field(exclude_if=lambda value: value is None)
"""Written where there is something to write: most families have a name and a version alone."""


class ModelSpec(Section):
    """Which model family is trained: its name, and its version where another than the present one is meant.

    For `keras-layers` the list of `layers`, and what their `input` is; the data set's own kind where left out.
    """

    family: StrictStr
    version: Annotated[StrictStr | None, _WHERE_GIVEN] = None
    input: Annotated[Literal["vector", "image"] | None, _WHERE_GIVEN] = None
    layers: Annotated[Annotated[list[Any], Field(max_length=256)] | None, _WHERE_GIVEN] = None


class DatasetSpec(Section):
    """What it is trained on, and how that is split: seeded, stratified for classification.

    A `grouped` split keeps samples together that belong together, such as those of one voice: no group is in two parts.
    `id` is an upload's; where only its name is given the service fills it in, so that the data never change.
    """

    name: StrictStr
    id: StrictStr | None = None
    validation_fraction: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.2
    test_fraction: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0
    split_seed: Seed = 0
    grouped: StrictBool = False


class EarlyStopping(Section):
    """End a trial once `metric` has not improved by more than `min_delta` for `patience` epochs."""

    metric: MetricName = "val_loss"
    patience: Annotated[StrictInt, Field(ge=0, le=100_000)] = 5
    min_delta: Annotated[FiniteFloat, Field(ge=0)] = 0.0


Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]
ClassWeight = Annotated[FiniteFloat, Field(ge=0, le=1e6)]
ClassWeights = Literal["balanced"] | Annotated[dict[StrictStr, ClassWeight], Field(min_length=1, max_length=10_000)]


class TrainingSpec(Section):
    """How each trial is trained. `epochs` counts passes over the training part."""

    epochs: Annotated[StrictInt, Field(ge=1, le=100_000)] = 10
    seed: Seed = 0
    precision: Precision = "float32"
    select_epoch: Literal["best", "last"] = "best"
    early_stopping: EarlyStopping | None = None
    class_weights: ClassWeights | None = None
    deterministic: StrictBool = False
    folds: Annotated[StrictInt, Field(ge=1, le=50)] = 1
    repeats: Annotated[StrictInt, Field(ge=1, le=100)] = 1

    @property
    def instances(self) -> int:
        """How often a trial is trained: each repeat on each fold."""
        return self.folds * self.repeats


class Objective(Section):
    """A metric to optimise; a study with a `target` completes once a trial reaches it."""

    metric: MetricName
    direction: Direction = "minimize"
    target: FiniteFloat | None = None

    @property
    def maximizes(self) -> bool:
        """Whether more is better."""
        return maximizes(self.direction)

    def loss(self, value: float) -> float:
        """A value as a loss: less is better."""
        return sign(self.direction) * value

    def is_better(self, value: float, than: float) -> bool:
        """Whether a value beats another."""
        return is_better(value, than, self.direction)


class Constraint(Section):
    """Bounds on a metric of the selected epoch; a trial outside them is COMPLETE but not feasible."""

    metric: MetricName
    min: FiniteFloat | None = None
    max: FiniteFloat | None = None


class NamedOptions(Section):
    """A sampler or pruner by name, with its options."""

    name: StrictStr
    options: dict[StrictStr, Any] = {}


class Budget(Section):
    """The study's limits, all global over its workers. At least one must be given."""

    trials: Count | None = None
    seconds: Seconds | None = None
    device_seconds: Seconds | None = None
    no_improvement_trials: Count | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no limit is set."""
        return not any((self.trials, self.seconds, self.device_seconds, self.no_improvement_trials))


ExtraArtifact = Literal["tensorboard"]
"""What may be asked for beside a kept model: `tensorboard` is an event file of all its epochs."""


class Execution(Section):
    """How trials are run: how many at once, where, and what happens to those that fail."""

    parallel_trials: Literal["auto"] | Annotated[StrictInt, Field(ge=1, le=10_000)] = "auto"
    device: Annotated[StrictStr, Field(pattern=r"^(auto|cpu|gpu(:\d{1,3})?)$")] = "auto"
    worker_labels: dict[Label, LabelValue] = {}
    max_attempts: Annotated[StrictInt, Field(ge=1, le=100)] = 3
    trial_timeout_seconds: Seconds | None = None
    duplicates: Literal["allow", "reuse", "resample"] = "allow"
    keep_models: Literal["best", "all", "none"] = "best"
    checkpoints: Literal["auto", "off"] = "auto"
    artifacts: Annotated[list[ExtraArtifact], Field(max_length=1)] = []
    priority: Annotated[StrictInt, Field(ge=-1000, le=1000)] = 0


class WarmStart(Section):
    """Earlier studies, by id or name, whose results the sampler learns from."""

    studies: Annotated[list[Annotated[StrictStr, Field(min_length=1, max_length=200)]], Field(max_length=16)] = []


DETERMINISTIC_PARALLEL = 8
"""What `parallel_trials: "auto"` means in a deterministic study: as many as gain from training in one call."""


class StudyDefinition(Section):
    """A tuning study as posted to `POST /v1/studies`, all defaults filled in."""

    name: Name
    description: Annotated[StrictStr, Field(max_length=10_000)] = ""
    labels: Annotated[dict[Label, LabelValue], Field(max_length=64)] = {}
    model: ModelSpec
    dataset: DatasetSpec | None = None
    hyperparameters: Annotated[dict[StrictStr, Parameter | Value], Field(max_length=1000)] = {}
    training: TrainingSpec = TrainingSpec()
    objectives: Annotated[list[Objective], Field(min_length=1, max_length=8)]
    constraints: Annotated[list[Constraint], Field(max_length=32)] = []
    sampler: NamedOptions = NamedOptions(name="tpe")
    pruner: NamedOptions = NamedOptions(name="none")
    budget: Budget
    execution: Execution = Execution()
    warm_start: WarmStart = WarmStart()

    @property
    def searched(self) -> dict[str, Float | Int | Categorical]:
        """The hyperparameters that are searched, by name."""
        return {n: p for n, p in self.hyperparameters.items() if isinstance(p, Float | Int | Categorical)}

    @property
    def fixed(self) -> dict[str, Scalar]:
        """The hyperparameters that have one value in every trial, by name."""
        return {n: v for n, v in self.hyperparameters.items() if not isinstance(v, Float | Int | Categorical)}

    @property
    def generation(self) -> int | None:
        """How many trials of a deterministic study are proposed together, once all before have ended; else None."""
        if not self.training.deterministic:
            return None
        return self.max_parallel or DETERMINISTIC_PARALLEL

    @property
    def max_parallel(self) -> int | None:
        """How many trials may hold a lease at once; None where the workers decide."""
        parallel = self.execution.parallel_trials
        return None if parallel == "auto" else parallel


class StudyState(StrEnum):
    """The life of a study. Only RUNNING studies offer trials to workers."""

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    STOPPING = "STOPPING"
    COMPLETED = "COMPLETED"
    STOPPED = "STOPPED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"

    @property
    def is_over(self) -> bool:
        """Whether the state is final (a larger budget may still reopen a COMPLETED study)."""
        return self in OVER_STATES


OVER_STATES = (StudyState.COMPLETED, StudyState.STOPPED, StudyState.CANCELLED, StudyState.FAILED)

FIRST_FAILURES = 10
"""A study whose first trials, this many, all fail by themselves is FAILED."""
FAILURES_IN_A_ROW = 50
"""A study with this many own failures in a row is FAILED."""


def trial_seed(seed: int, number: int) -> int:
    """The seed of trial `number` in 0..2**31-1: the same on every worker and attempt (SplitMix64's mix of both)."""
    z = (seed * 0x9E3779B97F4A7C15 + number + 1) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return (z ^ (z >> 31)) & 0x7FFFFFFF
