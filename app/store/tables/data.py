"""Data sets of users, and which study trains on which."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.base import Base


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
