"""What an operator's work leaves: what was pruned of which study, and when the database was restored."""

from __future__ import annotations

from sqlalchemy import Boolean, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.base import Base


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
