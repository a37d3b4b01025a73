"""Runs migrations on the connection that `app.store.migrate` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from app.store.compatibility import NOTE_TABLE
from app.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table="fettle_alembic_version",
    render_as_batch=True,
    include_name=lambda name, kind, _parents: (
        kind != "table" or (str(name).startswith("fettle_") and name != NOTE_TABLE)
    ),
)
context.run_migrations()
