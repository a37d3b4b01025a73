"""Trials with their leases, and what an attempt leaves: metrics, logs, artifacts, checkpoints."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.base import Base


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
