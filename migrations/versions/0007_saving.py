"""Scores on the test part, generations of deterministic studies, the memory of workers' devices"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
loses = "sealed test scores, deterministic studies' generations, workers' memory"


def upgrade() -> None:
    """Bring the schema to this revision."""
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    # Columns without a default are added in place by both databases.
    op.add_column("fettle_studies", sa.Column("generation", big, nullable=True))
    op.add_column("fettle_trials", sa.Column("test_metrics", sa.Text(), nullable=True))
    op.add_column("fettle_workers", sa.Column("memory_mb", sa.Double(), nullable=True))


def downgrade() -> None:
    """Take the schema back to the one before."""
    op.drop_column("fettle_workers", "memory_mb")
    op.drop_column("fettle_trials", "test_metrics")
    op.drop_column("fettle_studies", "generation")
