"""What requests leave behind: the answers of idempotency keys."""

from __future__ import annotations

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.base import Base


class IdempotencyKey(Base):
    """The answer that a request with this key got; `status` is None while the first one is still being served."""

    __tablename__ = "fettle_idempotency_keys"

    project: Mapped[str] = mapped_column(String(128), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[int | None]
    headers: Mapped[str] = mapped_column(Text, default="{}")
    body: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float]
