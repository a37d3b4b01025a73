"""The event log: each study's events and their counter."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.base import Base


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
