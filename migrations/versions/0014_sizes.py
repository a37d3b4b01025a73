"""Events by project, fixed hyperparameters once, and the answers that are kept for a study"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
# Older code writes trials and events with all that they hold, and events without their project: both are read. Of a
# trial whose fixed values are with its study alone it sees no hyperparameters, so it draws the next attempt anew.
compatible_from = "0013"
loses = (
    "the hyperparameters beside the sampled ones of trials whose study has large fixed values, and which study a kept "
    "answer to an Idempotency-Key is of"
)
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring the schema to this revision."""
    # Not in batch mode: SQLite need not copy the tables for columns.
    op.add_column("fettle_trials", sa.Column("varied", sa.Text(), nullable=True))
    op.add_column("fettle_events", sa.Column("project", sa.String(128), nullable=True))
    op.execute(
        "UPDATE fettle_events SET project = "
        "(SELECT project FROM fettle_studies WHERE fettle_studies.id = fettle_events.study_id)"
    )
    op.create_index("ix_fettle_events_project", "fettle_events", ["project", "position", "study_id", "seq"])
    op.create_index(
        "ix_fettle_events_unclaimed",
        "fettle_events",
        ["position", "study_id", "seq"],
        sqlite_where=sa.text("project IS NULL"),
        postgresql_where=sa.text("project IS NULL"),
    )
    op.add_column("fettle_idempotency_keys", sa.Column("study_id", KEY, nullable=True))
    op.add_column("fettle_idempotency_keys", sa.Column("size_bytes", KEY, nullable=False, server_default="0"))
    op.create_index("ix_fettle_idempotency_keys_study", "fettle_idempotency_keys", ["study_id"])
    op.create_index("ix_fettle_idempotency_keys_size", "fettle_idempotency_keys", ["project", "size_bytes"])


def downgrade() -> None:
    """Take the schema back to the one before."""
    op.drop_index("ix_fettle_idempotency_keys_size", "fettle_idempotency_keys")
    op.drop_index("ix_fettle_idempotency_keys_study", "fettle_idempotency_keys")
    op.drop_column("fettle_idempotency_keys", "size_bytes")
    op.drop_column("fettle_idempotency_keys", "study_id")
    op.drop_index("ix_fettle_events_unclaimed", "fettle_events")
    op.drop_index("ix_fettle_events_project", "fettle_events")
    op.drop_column("fettle_events", "project")
    op.drop_column("fettle_trials", "varied")
