"""Studies, with their labels and the attributes that Optuna keeps of them."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.base import Base


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
