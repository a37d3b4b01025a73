"""Checkpoints of trials, and trials that go on from others in generations"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
loses = "pointers to checkpoints, and which trial each trial of a population went on from"


def upgrade() -> None:
    """Bring the schema to this revision."""
    key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("fettle_studies", sa.Column("generation_size", key, nullable=True))
    op.add_column("fettle_trials", sa.Column("parent", key, nullable=True))
    op.add_column("fettle_trials", sa.Column("first_epoch", key, nullable=False, server_default=sa.text("0")))
    op.create_table(
        "fettle_checkpoints",
        sa.Column("trial_id", key, nullable=False, autoincrement=False),
        sa.Column("attempt", key, nullable=False),
        sa.Column("epochs", key, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size_bytes", key, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["fettle_trials.id"], name="fk_fettle_checkpoints_trial_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("trial_id", name="pk_fettle_checkpoints"),
    )


def downgrade() -> None:
    """Take the schema back to the one before."""
    op.drop_table("fettle_checkpoints")
    op.drop_column("fettle_trials", "first_epoch")
    op.drop_column("fettle_trials", "parent")
    op.drop_column("fettle_studies", "generation_size")
