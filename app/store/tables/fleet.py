"""Workers, and the families that they brought."""

from __future__ import annotations

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.base import Base


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
