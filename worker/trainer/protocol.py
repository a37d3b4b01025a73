"""The messages on the pipe between the supervisor and the trainer.

They speak of a *stack* of 1..K members: trials of one structural signature that train together. Messages are JSON in
length-prefixed frames, validated on receipt, never pickles: the trainer runs users' models, the supervisor holds the
database's credentials.

A stack's conversation, the supervisor's messages on the left:

    TrainStack →
               ← EpochDone        reports of the members still training
    Verdict    →                  which members end now, and why; only where the stack is `judged`
               ← MembersDone      results of members that ended in this round, where any did
    Keep       →                  which of their models to write, and where; who takes their slots
    (EpochDone … until every member has ended)
               ← Kept             what was written, for each Keep or TakeSnapshots that asked for it: between any two
                                  messages above
               ← Noted            what the study's owner should know of the data: whenever a split of them is first used
               ← Resumed          members that went on from a snapshot, or could not: before their first EpochDone
               ← Faulted          once at most, when the framework itself has failed: nobody joins, the trainer is
                                  replaced after the stack

At any time the supervisor may send `Join` (more members for the stack), `Halt` (members that end with this epoch),
`TakeSnapshots` (of members as they are after this epoch, those that end with it included) and `Prepare` (a program
that will be wanted): they are heard at the next boundary of an epoch. A stack is over once a
`Keep` leaves nobody in training and all models are written; nothing joins it after that `Keep`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from app.domain.families import Scalar
from app.domain.study import DatasetSpec, ModelSpec, Objective, TrainingSpec
from app.domain.trial import FailureReason

MADE_DATASETS = "datasets-made"
"""The folder beside the file of timings, in the data directory, that keeps data sets which trainers make."""

StopReason = Literal["PRUNED", "TIMEOUT", "CANCELLED", "LEASE_LOST", "FAULTED"]
"""Why a member is stopped. One that was `FAULTED`, in a trainer that had failed before, is tried again in another."""


class Message(BaseModel):
    """A message: immutable, and strict about its fields. Non-finite floats pass as their JSON strings."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Resume(Message):
    """A snapshot to go on from: the file at `path`, or in memory by its `key`.

    `own` is an earlier attempt's of the same trial: its epochs and its selected one are the member's. Of another
    trial's the member takes what was trained alone.
    """

    path: str
    key: str
    own: bool


class Member(Message):
    """One trial of a stack. `member` is its slot, unique in the stack; `seed` drives weights, shuffling and dropout.

    It starts from the first snapshot of `resume` that can be read; where none can, from fresh weights, unless it was to
    go on from another trial: then it fails. `epochs` is how many it trains where that isn't all of the study's.
    """

    member: int
    number: int
    hyperparameters: dict[str, Scalar]
    seed: int
    epochs: int | None = None
    resume: list[Resume] = []


class TrainStack(Message):
    """Train these members.

    `model` is the definition's, where it says more than the family's name; of the metrics in `gains` more is better.
    `data` is the path of an upload's file on this machine; `data_problem` says why there is none, and all are refused.
    `memory_mb` is what the device has, where that is known: a trial that needs more is refused.
    `choices` are the values that a runtime categorical may take in the study: one program. `slots` is how many members
    will train at once at most, `expected` how many trials of this signature are likely to come in all; `judged` says
    that every epoch waits for a verdict (there is a pruner).
    """

    kind: Literal["train_stack"] = "train_stack"
    stack: str
    family: str
    model: ModelSpec | None = None
    dataset: DatasetSpec | None
    data: str | None = None
    data_problem: str | None = None
    training: TrainingSpec
    objectives: list[Objective]
    choices: dict[str, list[Scalar]] = {}
    gains: list[str] = []
    slots: int = 1
    expected: int = 1
    memory_mb: float | None = None
    judged: bool = True
    members: list[Member]


class Join(Message):
    """More members for the stack, of its signature: they start with the next epoch."""

    kind: Literal["join"] = "join"
    stack: str
    members: list[Member]


class Prepare(Message):
    """A program that trials to come will need: compiled on an idle core. `hyperparameters` are one trial's, all."""

    kind: Literal["prepare"] = "prepare"
    family: str
    model: ModelSpec | None = None
    dataset: DatasetSpec | None
    data: str | None = None
    training: TrainingSpec = TrainingSpec()
    choices: dict[str, list[Scalar]] = {}
    slots: int
    expected: int
    memory_mb: float | None = None
    hyperparameters: dict[str, Scalar]


class Stop(Message):
    """End a member at this epoch's boundary."""

    member: int
    reason: StopReason


class Verdict(Message):
    """The answer to `EpochDone`: members not named go on."""

    kind: Literal["verdict"] = "verdict"
    stack: str
    stop: list[Stop] = []


class Halt(Message):
    """End these members at this epoch's boundary; those that have ended already are passed over."""

    kind: Literal["halt"] = "halt"
    stack: str
    stop: list[Stop]


class TakeSnapshot(Message):
    """Write a member's state to `path`; kept in memory as well, where it is handed on, by `key` and its epochs."""

    member: int
    path: str
    key: str | None = None


class TakeSnapshots(Message):
    """Write the state of these members at this epoch's boundary."""

    kind: Literal["take_snapshots"] = "take_snapshots"
    stack: str
    snapshots: list[TakeSnapshot]


class KeepModel(Message):
    """Take the selected epoch's model of a member: write it as a Keras file at `path`, where one is given.

    What comes with it is written beside; `extras` are what the study asks for beyond that, such as "tensorboard". It is
    scored on the test part, where the data set keeps one.
    """

    member: int
    path: str | None = None
    extras: list[str] = []


class Keep(Message):
    """The answer to `MembersDone`: models and states to write, the others' are dropped, and members that join."""

    kind: Literal["keep"] = "keep"
    stack: str
    models: list[KeepModel] = []
    snapshots: list[TakeSnapshot] = []
    join: list[Member] = []


class Shutdown(Message):
    """Leave after the current stack."""

    kind: Literal["shutdown"] = "shutdown"


class Ready(Message):
    """The trainer imported its framework and sees its device. `broken` says why plugins' families can't be trained."""

    kind: Literal["ready"] = "ready"
    pid: int
    device: str
    families: list[str]
    broken: dict[str, str] = {}


class EpochReport(Message):
    """Metrics of one epoch of one member; `epoch` starts at 0.

    `so_far` are the metrics that come with a result, as they are now: where a stack of several objectives is judged.
    With folds or repeats `instance` counts them from 0, and `instance_result` comes with the last epoch of each.
    """

    member: int
    epoch: int
    metrics: dict[str, float]
    so_far: dict[str, float] = {}
    instance: int = 0
    instance_result: dict[str, float] | None = None


class EpochDone(Message):
    """The reports of one epoch of the whole stack, in member order.

    `width` is how many members the program trains at once without waiting: more gain nothing.
    """

    kind: Literal["epoch_done"] = "epoch_done"
    stack: str
    reports: list[EpochReport]
    width: int = 1


class MemberResult(Message):
    """How a member ended.

    `complete`: all epochs, or early stopping; `stopped`: by a verdict; `failed`: by itself, with reason, message and
    traceback. `metrics` are the selected epoch's, with parameter_count, train_seconds and generalization_gap;
    `values` the objectives' in the definition's order, empty where nothing was selected.
    """

    member: int
    outcome: Literal["complete", "stopped", "failed"]
    stop_reason: StopReason | None = None
    selected_epoch: int | None = None
    epochs: int = 0
    metrics: dict[str, float] = {}
    values: list[float] = []
    device_seconds: float = 0.0
    reason: FailureReason | None = None
    error_code: str | None = None
    message: str | None = None
    traceback: str | None = None


class MembersDone(Message):
    """Results of the members that ended in this round."""

    kind: Literal["members_done"] = "members_done"
    stack: str
    results: list[MemberResult]


class KeptFile(Message):
    """A file that was written beside a model: what it is called as an artifact, and where it lies."""

    name: str
    path: str
    media_type: str
    size_bytes: int
    details: dict[str, Any] = {}


class KeptModel(Message):
    """A file that was written, or why it was not; what its model scores on the test part.

    `files` came with it; `notes` are lines for the trial's log.
    """

    member: int
    path: str | None = None
    size_bytes: int = 0
    metadata: dict[str, Any] = {}
    test_metrics: dict[str, float] = {}
    files: list[KeptFile] = []
    notes: list[str] = []
    error: str | None = None


class KeptSnapshot(Message):
    """A member's state after `epochs` of its epochs that was written, or why it was not."""

    member: int
    path: str
    epochs: int = 0
    size_bytes: int = 0
    error: str | None = None


class Kept(Message):
    """What a `Keep` or a `TakeSnapshots` named, once it is written: the other members trained on meanwhile."""

    kind: Literal["kept"] = "kept"
    stack: str
    models: list[KeptModel] = []
    snapshots: list[KeptSnapshot] = []


class DataNote(Message):
    """Something about the data that the study's owner should know."""

    code: str
    message: str


class Noted(Message):
    """What was found out about the data of a stack while they were prepared."""

    kind: Literal["noted"] = "noted"
    stack: str
    notes: list[DataNote]


class ResumedMember(Message):
    """Where a member starts: with `epochs` of its own behind it. `problems` are snapshots that could not be used.

    `instances` are the results of the folds and repeats behind it.
    """

    member: int
    epochs: int
    instances: list[dict[str, float]] = []
    problems: list[str] = []


class Faulted(Message):
    """The framework itself failed in this trainer, which is not to be used again; `problem` is its first error."""

    kind: Literal["faulted"] = "faulted"
    problem: str


class Resumed(Message):
    """Members that go on from an earlier attempt's snapshot, or could not use one that they were given."""

    kind: Literal["resumed"] = "resumed"
    stack: str
    members: list[ResumedMember]


Request = TrainStack | Join | Halt | TakeSnapshots | Prepare | Verdict | Keep | Shutdown
Answer = Ready | Noted | Resumed | EpochDone | MembersDone | Kept | Faulted
to_trainer: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="kind")])
from_trainer: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="kind")])
