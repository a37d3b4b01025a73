"""Webhooks: where a project's events are sent, and how far each has come."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.base import Base


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
