"""The tables: our only record of studies and trials.

Times are Unix seconds (float, UTC) by the database's clock. JSON is kept as text: jsonb would reorder a definition's
keys and refuse NaN. All names carry the prefix `fettle_`, since users keep other tools' tables in the same database.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
BigId = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """All tables of the service."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: dict[Any, Any] = {float: Double, str: String, int: BigId}


def table_of(entity: type[Base]) -> Table:
    """The table of a mapped class, for statements without the ORM's overhead on hot paths."""
    table = entity.__table__
    if not isinstance(table, Table):
        raise TypeError(f"Expected a mapped class with a table of its own. Received: {entity}")
    return table


class Project(Base):
    """A namespace of studies and data sets, with its quotas; None: no quota.

    Its row is locked by whoever takes from a quota (see `app.store.quotas`).
    """

    __tablename__ = "fettle_projects"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    description: Mapped[str] = mapped_column(Text, default="")
    max_studies: Mapped[int | None]
    max_running_trials: Mapped[int | None]
    max_stored_bytes: Mapped[int | None]
    created_by: Mapped[str | None] = mapped_column(String(128))
    created_at: Mapped[float]


class ApiKey(Base):
    """An API key, of which only a keyed hash is stored; rows stay after it was revoked.

    `old_hash` is the secret before the last rotation, good until `old_expires_at`. `secret_mark` names the service's
    secret that the hashes were made with (`app.domain.keys.mark`).
    """

    __tablename__ = "fettle_keys"
    __table_args__ = (
        Index(
            "ix_fettle_keys_name",
            "project",
            "name",
            unique=True,
            sqlite_where=text("revoked_at IS NULL"),
            postgresql_where=text("revoked_at IS NULL"),
        ),
        Index("ix_fettle_keys_listing", "project", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(40), unique=True)
    project: Mapped[str] = mapped_column(String(128))
    all_projects: Mapped[bool] = mapped_column(default=False)
    name: Mapped[str] = mapped_column(String(128))
    scopes: Mapped[str] = mapped_column(Text)
    """Their names, with spaces between."""
    secret_hash: Mapped[str] = mapped_column(String(64))
    old_hash: Mapped[str | None] = mapped_column(String(64))
    old_expires_at: Mapped[float | None]
    secret_mark: Mapped[str] = mapped_column(String(16))
    created_by: Mapped[str | None] = mapped_column(String(128))
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    last_used_at: Mapped[float | None]


class AuditEntry(Base):
    """A change that somebody made: written in the transaction of the change, never changed itself.

    `key_id` and `actor` (the key's name) are None where the service was open; `details` are a few words of our own as
    JSON, never what a user sent.
    """

    __tablename__ = "fettle_audit"
    __table_args__ = (Index("ix_fettle_audit_listing", "project", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float]
    project: Mapped[str] = mapped_column(String(128))
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(255))
    key_id: Mapped[str | None] = mapped_column(String(40))
    actor: Mapped[str | None] = mapped_column(String(128))
    request_id: Mapped[str | None] = mapped_column(String(128))
    address: Mapped[str | None] = mapped_column(String(64))
    details: Mapped[str] = mapped_column(Text, default="{}")


class Study(Base):
    """A study: its definition, its state and its progress as counters.

    `managed` tells the service's studies from those made by plain Optuna, which have no definition and no leases.
    Locked first by every transaction that reserves, starts, finishes, cancels or reaps.
    """

    __tablename__ = "fettle_studies"
    __table_args__ = (
        UniqueConstraint("project", "name"),
        Index(
            "ix_fettle_studies_claimable",
            "state",
            "priority",
            sqlite_where=text("managed"),
            postgresql_where=text("managed"),
        ),
        Index("ix_fettle_studies_listing", "project", "created_at", "id"),
        Index("ix_fettle_studies_state", "project", "state", "created_at", "id"),
        {"sqlite_autoincrement": True},  # an id is never given twice: processes cache by it
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(40), unique=True)
    project: Mapped[str] = mapped_column(String(128), default="default")
    name: Mapped[str] = mapped_column(Text)
    managed: Mapped[bool] = mapped_column(default=True)
    description: Mapped[str] = mapped_column(Text, default="")
    directions: Mapped[str] = mapped_column(Text)
    objective_metrics: Mapped[str] = mapped_column(Text, default="[]")
    definition: Mapped[str | None] = mapped_column(Text)
    revision: Mapped[int] = mapped_column(default=1)

    state: Mapped[str] = mapped_column(String(16), default="RUNNING")
    state_reason: Mapped[str | None] = mapped_column(Text)
    halt_reason: Mapped[str | None] = mapped_column(Text)
    """Set once a limit or target is met: nothing more is reserved, running trials stop at their next epoch."""

    family: Mapped[str | None] = mapped_column(String(128))
    family_version: Mapped[str | None] = mapped_column(String(32))
    """The version that its trials are trained with; None for studies from before versions were kept: any."""
    device: Mapped[str] = mapped_column(String(16), default="auto")
    worker_labels: Mapped[str] = mapped_column(Text, default="{}")
    priority: Mapped[int] = mapped_column(default=0)
    keep_models: Mapped[str] = mapped_column(String(8), default="best")
    target_value: Mapped[float | None]
    max_parallel: Mapped[int | None]
    max_attempts: Mapped[int] = mapped_column(default=3)
    trial_limit: Mapped[int | None]
    sample_limit: Mapped[int | None]
    """How many trials the sampler can draw: the cells of a grid, the generations of a population."""
    generation_size: Mapped[int | None]
    """Trials of a generation, where one begins only once all trials of the one before have finished."""
    seconds_limit: Mapped[float | None]
    device_seconds_limit: Mapped[float | None]
    no_improvement_limit: Mapped[int | None]
    generation: Mapped[int | None]
    """Of a deterministic study: how many trials are reserved together, once all before them have ended."""
    deadline_at: Mapped[float | None]

    next_number: Mapped[int] = mapped_column(default=0)
    sampled_count: Mapped[int] = mapped_column(default=0)
    leased: Mapped[int] = mapped_column(default=0)
    waiting: Mapped[int] = mapped_column(default=0)
    running: Mapped[int] = mapped_column(default=0)
    complete: Mapped[int] = mapped_column(default=0)
    pruned: Mapped[int] = mapped_column(default=0)
    fail: Mapped[int] = mapped_column(default=0)
    finished_count: Mapped[int] = mapped_column(default=0)
    own_failures_in_row: Mapped[int] = mapped_column(default=0)
    since_improvement: Mapped[int] = mapped_column(default=0)
    device_seconds: Mapped[float] = mapped_column(default=0.0)
    best_number: Mapped[int | None]
    best_value: Mapped[float | None]

    created_by: Mapped[str | None] = mapped_column(String(128))
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]


class StudyLabel(Base):
    """A label of a study, as rows so that lists can filter by it."""

    __tablename__ = "fettle_study_labels"
    __table_args__ = (Index("ix_fettle_study_labels_key_value", "key", "value"),)

    study_id: Mapped[int] = mapped_column(ForeignKey("fettle_studies.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class StudyAttribute(Base):
    """An attribute that Optuna, or a user through Optuna, set on a study. `scope` is `user` or `system`."""

    __tablename__ = "fettle_study_attributes"

    study_id: Mapped[int] = mapped_column(ForeignKey("fettle_studies.id", ondelete="CASCADE"), primary_key=True)
    scope: Mapped[str] = mapped_column(String(8), primary_key=True)
    key: Mapped[str] = mapped_column(String(512), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class Trial(Base):
    """A trial and, while a worker holds it, its lease.

    A WAITING row with a lease is a *reservation*. `attempt` counts starts; `charged` those that count against
    `max_attempts`. `finish_token` keeps the token that recorded the end, so that a repeated finish is recognised.
    """

    __tablename__ = "fettle_trials"
    __table_args__ = (
        UniqueConstraint("study_id", "number"),
        Index("ix_fettle_trials_finish_seq", "study_id", "finish_seq"),
        # Lists of any order and filter are ranges of these two (see `app.store.listing`).
        Index("ix_fettle_trials_state", "study_id", "state", "feasible", "number"),
        Index("ix_fettle_trials_value", "study_id", "state", "feasible", "value", "number"),
        Index(
            "ix_fettle_trials_identity",
            "study_id",
            "identity",
            sqlite_where=text("identity IS NOT NULL"),
            postgresql_where=text("identity IS NOT NULL"),
        ),
        Index(
            "ix_fettle_trials_queue",
            "study_id",
            "queue",
            "number",
            sqlite_where=text("state = 'WAITING' AND lease_token IS NULL"),
            postgresql_where=text("state = 'WAITING' AND lease_token IS NULL"),
        ),
        Index(
            "ix_fettle_trials_lease_expires_at",
            "lease_expires_at",
            sqlite_where=text("lease_token IS NOT NULL"),
            postgresql_where=text("lease_token IS NOT NULL"),
        ),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("fettle_studies.id", ondelete="CASCADE"))
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(16))
    feasible: Mapped[bool | None]
    attempt: Mapped[int] = mapped_column(default=0)
    charged: Mapped[int] = mapped_column(default=0)

    queue: Mapped[int] = mapped_column(default=1)
    """Order of claiming among WAITING rows: 0 retried or given back, 1 enqueued."""
    ordinal: Mapped[int | None]
    """How many sampled trials of the study came before; None for enqueued ones. A grid's cell, a sequence's index."""
    requested: Mapped[str | None] = mapped_column(Text)
    """The hyperparameters that an enqueued trial was given, as JSON."""
    hyperparameters: Mapped[str | None] = mapped_column(Text)
    """All of them, as JSON; None before the trial was drawn, and where `varied` has them."""
    varied: Mapped[str | None] = mapped_column(Text)
    """Those that the study's definition doesn't fix, as JSON: in place of all of them where the fixed ones are large
    (see `app.domain.fixed`)."""
    sampled: Mapped[str | None] = mapped_column(Text)

    objective_values: Mapped[str | None] = mapped_column(Text)
    value: Mapped[float | None]
    """The first objective's value, for sorting."""
    metrics: Mapped[str | None] = mapped_column(Text)
    test_metrics: Mapped[str | None] = mapped_column(Text)
    """Scores on the test part that nobody has been told yet, as JSON (see `app.store.scoring`)."""
    selected_epoch: Mapped[int | None]
    epochs: Mapped[int] = mapped_column(default=0)
    parent: Mapped[int | None]
    """The number of the trial whose state this one goes on from (population-based training)."""
    first_epoch: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """How many epochs its ancestors trained: its own epoch 0 is this one of its lineage."""
    curve: Mapped[str | None] = mapped_column(Text)
    """The finished attempt's objectives by epoch, as JSON lists [step, value, …]: whole-trial reads for pruners. Only
    the first one is there where the others were not reported by epoch."""
    violations: Mapped[str | None] = mapped_column(Text)
    """How far each constraint is broken (positive: broken), as JSON, for the sampler."""

    lease_token: Mapped[str | None] = mapped_column(String(40), unique=True)
    lease_expires_at: Mapped[float | None]
    lease_seconds: Mapped[float | None]
    """How long an outside program asked for its lease: what a heartbeat renews it for."""
    finish_token: Mapped[str | None] = mapped_column(String(40))
    worker_id: Mapped[str | None] = mapped_column(String(128))
    device: Mapped[str | None] = mapped_column(String(64))

    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    finish_seq: Mapped[int | None]
    """Order of finishing in the study, from 1: the cursor of incremental reads."""
    device_seconds: Mapped[float] = mapped_column(default=0.0)
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]

    user_attributes: Mapped[str] = mapped_column(Text, default="{}")
    system_attributes: Mapped[str] = mapped_column(Text, default="{}")
    optuna_params: Mapped[str | None] = mapped_column(Text)
    """Plain Optuna's trials alone: {name: [internal value, distribution JSON]}, in order of suggestion."""
    identity: Mapped[str | None] = mapped_column(String(32))
    """A hash of what was sampled (`app.domain.identity`), of started trials of studies that don't allow duplicates."""
    reused_from: Mapped[int | None]
    """The number of the trial whose result this one has, without having been trained."""


class Metric(Base):
    """The metrics that one attempt reported for one epoch, as JSON. Plain Optuna's reports are attempt 0."""

    __tablename__ = "fettle_metrics"

    trial_id: Mapped[int] = mapped_column(ForeignKey("fettle_trials.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    metrics: Mapped[str] = mapped_column(Text)
    at: Mapped[float]


class TrialLog(Base):
    """What an attempt logged: messages and tracebacks."""

    __tablename__ = "fettle_trial_logs"

    trial_id: Mapped[int] = mapped_column(ForeignKey("fettle_trials.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    at: Mapped[float]


class Artifact(Base):
    """A file of a trial: a pointer below the artifact location, published by a fenced write."""

    __tablename__ = "fettle_artifacts"
    __table_args__ = (Index("ix_fettle_artifacts_study", "study_id", "trial_id"),)

    trial_id: Mapped[int] = mapped_column(ForeignKey("fettle_trials.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    study_id: Mapped[int]
    """The trial's study: finding the files of the best trial so far must not take longer with every trial."""
    attempt: Mapped[int]
    path: Mapped[str] = mapped_column(Text)
    media_type: Mapped[str] = mapped_column(String(128))
    size_bytes: Mapped[int]
    details: Mapped[str] = mapped_column(Text, default="{}")
    created_at: Mapped[float]


class Checkpoint(Base):
    """A trial's last checkpoint: a pointer below the artifact location, published by a fenced write.

    While the trial lives its next attempt goes on from here; afterwards other trials may (`Trial.parent`).
    """

    __tablename__ = "fettle_checkpoints"

    trial_id: Mapped[int] = mapped_column(ForeignKey("fettle_trials.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int]
    epochs: Mapped[int]
    """How many of its epochs the trial had behind it."""
    path: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int]
    created_at: Mapped[float]


class EventCounter(Base):
    """The number of a study's last event: incremented last in every transaction that tells events.

    `last_position` is the last event's position, on PostgreSQL alone: the next one's is no lower.
    """

    __tablename__ = "fettle_event_counters"

    study_id: Mapped[int] = mapped_column(ForeignKey("fettle_studies.id", ondelete="CASCADE"), primary_key=True)
    last_seq: Mapped[int] = mapped_column(default=0)
    last_position: Mapped[int] = mapped_column(BigInteger, server_default="0")


class Event(Base):
    """An event as it goes over the wire: `data` is the JSON text that streams send, encoded once.

    `position` orders the events of all studies for the project's firehose (see `app.store.log`).
    """

    __tablename__ = "fettle_events"
    __table_args__ = (
        Index("ix_fettle_events_position", "position", "study_id", "seq"),
        # A project's firehose reads no other project's events, however many those are.
        Index("ix_fettle_events_project", "project", "position", "study_id", "seq"),
        Index(
            "ix_fettle_events_unclaimed",
            "position",
            "study_id",
            "seq",
            sqlite_where=text("project IS NULL"),
            postgresql_where=text("project IS NULL"),
        ),
    )

    study_id: Mapped[int] = mapped_column(ForeignKey("fettle_studies.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    position: Mapped[int]
    type: Mapped[str] = mapped_column(String(32))
    data: Mapped[str] = mapped_column(Text)
    project: Mapped[str | None] = mapped_column(String(128))
    """The study's project; None where an older release told the event beside this one."""


class StoredDataset(Base):
    """A data set of a user: an upload, or a file that is named by `uri`.

    `content_hash` is the SHA-256 of the file as it came, `reading` how it is read (JSON), `object_hash` the SHA-256 of
    what comes of that, which is what workers train on; `details` describe it (JSON, see `app.data.normal`).
    """

    __tablename__ = "fettle_datasets"
    __table_args__ = (
        UniqueConstraint("project", "name"),
        Index("ix_fettle_datasets_listing", "project", "id"),
        Index("ix_fettle_datasets_object_hash", "object_hash"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(40), unique=True)
    project: Mapped[str] = mapped_column(String(128), default="default")
    name: Mapped[str] = mapped_column(Text)
    content_hash: Mapped[str] = mapped_column(String(64))
    object_hash: Mapped[str] = mapped_column(String(64))
    uri: Mapped[str | None] = mapped_column(Text)
    reading: Mapped[str] = mapped_column(Text)
    details: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int]
    created_by: Mapped[str | None] = mapped_column(String(128))
    created_at: Mapped[float]


class StudyDataset(Base):
    """Which data set of a user a study trains on: as long as the row stands, the data set can't be deleted."""

    __tablename__ = "fettle_study_datasets"

    study_id: Mapped[int] = mapped_column(ForeignKey("fettle_studies.id", ondelete="CASCADE"), primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("fettle_datasets.id"), index=True)


class Worker(Base):
    """A worker process: what it offers, and when it was last heard of."""

    __tablename__ = "fettle_workers"

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    device: Mapped[str] = mapped_column(String(64))
    families: Mapped[str] = mapped_column(Text)
    family_versions: Mapped[str] = mapped_column(Text, default="{}")
    labels: Mapped[str] = mapped_column(Text, default="{}")
    version: Mapped[str] = mapped_column(String(32))
    memory_mb: Mapped[float | None]
    """What its device has: a GPU's memory, or what the machine or container lets a process have."""
    drain_requested: Mapped[bool] = mapped_column(default=False)
    started_at: Mapped[float]
    heartbeat_at: Mapped[float]


class AdvertisedFamily(Base):
    """A family of a plugin that a worker has offered: its declaration, and when a worker last came with it."""

    __tablename__ = "fettle_families"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[str] = mapped_column(String(32), primary_key=True)
    declaration: Mapped[str] = mapped_column(Text)
    advertised_at: Mapped[float]


class Webhook(Base):
    """A receiver of events. The `cursor_…` are the place of the last event that it has, the `batch_…` that of the last
    one of the batch that is being sent: a batch that is sent again ends where it ended the first time.

    The secret is kept as it is: every message is signed with it.
    """

    __tablename__ = "fettle_webhooks"
    __table_args__ = (Index("ix_fettle_webhooks_project", "project", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), unique=True)
    project: Mapped[str] = mapped_column(String(128))
    study_id: Mapped[int | None] = mapped_column(ForeignKey("fettle_studies.id", ondelete="CASCADE"), index=True)
    url: Mapped[str] = mapped_column(Text)
    events: Mapped[str] = mapped_column(Text)
    secret: Mapped[str] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(16))
    state_reason: Mapped[str | None] = mapped_column(Text)
    created_by: Mapped[str | None] = mapped_column(String(128))
    created_at: Mapped[float]

    cursor_position: Mapped[int]
    cursor_study: Mapped[int]
    cursor_seq: Mapped[int]
    batch_position: Mapped[int | None]
    batch_study: Mapped[int | None]
    batch_seq: Mapped[int | None]

    lease_token: Mapped[str | None] = mapped_column(String(32))
    lease_expires_at: Mapped[float | None]
    next_attempt_at: Mapped[float]
    failures: Mapped[int] = mapped_column(default=0)
    failing_since: Mapped[float | None]
    last_status: Mapped[int | None]
    last_error: Mapped[str | None] = mapped_column(Text)
    last_attempt_at: Mapped[float | None]
    last_delivered_at: Mapped[float | None]


class IdempotencyKey(Base):
    """The answer that a request with this key got; `status` is None while the first one is still being served."""

    __tablename__ = "fettle_idempotency_keys"
    __table_args__ = (
        Index("ix_fettle_idempotency_keys_study", "study_id"),
        Index("ix_fettle_idempotency_keys_size", "project", "size_bytes"),
    )

    project: Mapped[str] = mapped_column(String(128), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[int | None]
    headers: Mapped[str] = mapped_column(Text, default="{}")
    body: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float]
    study_id: Mapped[int | None] = mapped_column(BigId)
    """The study that the answer is about: it goes with it."""
    size_bytes: Mapped[int] = mapped_column(BigId, default=0, server_default=text("0"))
    """What the answer counts in the project's quota of bytes."""


class Pruning(Base):
    """That something of a study, `what`, was deleted by the retention, last at `pruned_at`.

    `done`: there is nothing left of it. `position` is the firehose's place of the last event that is gone.
    """

    __tablename__ = "fettle_prunings"

    study_id: Mapped[int] = mapped_column(ForeignKey("fettle_studies.id", ondelete="CASCADE"), primary_key=True)
    what: Mapped[str] = mapped_column(String(16), primary_key=True)
    pruned_at: Mapped[float]
    done: Mapped[bool] = mapped_column(Boolean)
    position: Mapped[int | None] = mapped_column(index=True)


class Restore(Base):
    """That the database was brought back to an earlier state: what it told after `taken_at` is not known here."""

    __tablename__ = "fettle_restores"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    restored_at: Mapped[float]
    taken_at: Mapped[float | None]
