"""What was pruned of studies, and how often the database was restored"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None
# Older code trains and records as before; what is pruned, newer processes say.
compatible_from = "0011"
loses = "what was pruned and restored: streams no longer say where events are missing"


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "fettle_prunings",
        sa.Column(
            "study_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.ForeignKey("fettle_studies.id", ondelete="CASCADE", name="fk_fettle_prunings_study_id"),
            nullable=False,
        ),
        sa.Column("what", sa.String(16), nullable=False),
        sa.Column("pruned_at", sa.Double(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.PrimaryKeyConstraint("study_id", "what", name="pk_fettle_prunings"),
    )
    op.create_index("ix_fettle_prunings_position", "fettle_prunings", ["position"])
    op.create_table(
        "fettle_restores",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("restored_at", sa.Double(), nullable=False),
        sa.Column("taken_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("number", name="pk_fettle_restores"),
    )


def downgrade() -> None:
    """Take the schema back to the one before."""
    op.drop_table("fettle_restores")
    op.drop_index("ix_fettle_prunings_position", "fettle_prunings")
    op.drop_table("fettle_prunings")
