"""Indexes that serve lists in every order and filter"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None
loses = "nothing: indexes alone"


def upgrade() -> None:
    """Bring the schema to this revision."""
    # Not in batch mode: SQLite need not copy the table for an index.
    op.drop_index("ix_fettle_trials_state", table_name="fettle_trials")
    op.drop_index("ix_fettle_trials_value", table_name="fettle_trials")
    op.create_index("ix_fettle_trials_state", "fettle_trials", ["study_id", "state", "feasible", "number"])
    op.create_index("ix_fettle_trials_value", "fettle_trials", ["study_id", "state", "feasible", "value", "number"])
    op.create_index("ix_fettle_studies_state", "fettle_studies", ["project", "state", "created_at", "id"])


def downgrade() -> None:
    """Take the schema back to the one before."""
    op.drop_index("ix_fettle_studies_state", table_name="fettle_studies")
    op.drop_index("ix_fettle_trials_value", table_name="fettle_trials")
    op.drop_index("ix_fettle_trials_state", table_name="fettle_trials")
    op.create_index("ix_fettle_trials_state", "fettle_trials", ["study_id", "state", "number"])
    op.create_index("ix_fettle_trials_value", "fettle_trials", ["study_id", "value", "number"])
