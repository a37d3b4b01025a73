"""Artifacts know their study, so that those of one study are found by an index"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
loses = "nothing: which study a file belongs to is found out again"


def upgrade() -> None:
    """Bring the schema to this revision."""
    key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("fettle_artifacts", sa.Column("study_id", key, nullable=True))
    op.execute(
        "UPDATE fettle_artifacts SET study_id ="
        " (SELECT study_id FROM fettle_trials WHERE fettle_trials.id = fettle_artifacts.trial_id)"
    )
    with op.batch_alter_table("fettle_artifacts") as batch_op:
        batch_op.alter_column("study_id", existing_type=key, nullable=False)
        batch_op.create_index("ix_fettle_artifacts_study", ["study_id", "trial_id"], unique=False)


def downgrade() -> None:
    """Take the schema back to the one before."""
    with op.batch_alter_table("fettle_artifacts") as batch_op:
        batch_op.drop_index("ix_fettle_artifacts_study")
        batch_op.drop_column("study_id")
