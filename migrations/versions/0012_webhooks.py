"""Webhooks: receivers of events, and how far each has come"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
# Older code delivers nothing; what it records is delivered by newer processes.
compatible_from = "0011"
loses = "webhooks, and how far each receiver has been told"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "fettle_webhooks",
        sa.Column("id", BIG, primary_key=True),
        sa.Column("public_id", sa.String(32), nullable=False),
        sa.Column("project", sa.String(128), nullable=False),
        sa.Column("study_id", BIG, nullable=True),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("secret", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=True),
        sa.Column("created_by", sa.String(128), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("cursor_position", BIG, nullable=False),
        sa.Column("cursor_study", BIG, nullable=False),
        sa.Column("cursor_seq", BIG, nullable=False),
        sa.Column("batch_position", BIG, nullable=True),
        sa.Column("batch_study", BIG, nullable=True),
        sa.Column("batch_seq", BIG, nullable=True),
        sa.Column("lease_token", sa.String(32), nullable=True),
        sa.Column("lease_expires_at", sa.Double(), nullable=True),
        sa.Column("next_attempt_at", sa.Double(), nullable=False),
        sa.Column("failures", BIG, nullable=False),
        sa.Column("failing_since", sa.Double(), nullable=True),
        sa.Column("last_status", BIG, nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("last_attempt_at", sa.Double(), nullable=True),
        sa.Column("last_delivered_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_id"], ["fettle_studies.id"], name="fk_fettle_webhooks_study_id", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("public_id", name="uq_fettle_webhooks_public_id"),
    )
    op.create_index("ix_fettle_webhooks_project", "fettle_webhooks", ["project", "id"])
    op.create_index("ix_fettle_webhooks_study_id", "fettle_webhooks", ["study_id"])


def downgrade() -> None:
    """Take the schema back to the one before."""
    op.drop_table("fettle_webhooks")
