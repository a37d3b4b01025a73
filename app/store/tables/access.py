"""Who may do what, and who did: projects with their quotas, API keys, the audit log."""

from __future__ import annotations

from sqlalchemy import Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.base import Base


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
