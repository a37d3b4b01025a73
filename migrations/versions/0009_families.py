"""Families that workers advertise, and the version that a study was made for"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
loses = "families that plugins declared, and which version of its family a study wants"


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "fettle_families",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("declaration", sa.Text(), nullable=False),
        sa.Column("advertised_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", "version"),
    )
    # Not in batch mode: SQLite need not copy the tables for a column.
    op.add_column("fettle_studies", sa.Column("family_version", sa.String(32), nullable=True))
    op.add_column("fettle_workers", sa.Column("family_versions", sa.Text(), nullable=False, server_default="{}"))


def downgrade() -> None:
    """Take the schema back to the one before."""
    op.drop_column("fettle_workers", "family_versions")
    op.drop_column("fettle_studies", "family_version")
    op.drop_table("fettle_families")
