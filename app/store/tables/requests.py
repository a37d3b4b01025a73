"""What requests leave behind: the answers of idempotency keys."""

from __future__ import annotations

from sqlalchemy import Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.base import Base, BigId


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
