"""Uploaded data sets, and which studies train on them"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
loses = "uploaded and registered data sets, and which studies train on them; their files remain"


def upgrade() -> None:
    """Bring the schema to this revision."""
    key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "fettle_datasets",
        sa.Column("id", key, nullable=False),
        sa.Column("public_id", sa.String(length=40), nullable=False),
        sa.Column("project", sa.String(length=128), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("object_hash", sa.String(length=64), nullable=False),
        sa.Column("uri", sa.Text(), nullable=True),
        sa.Column("reading", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("size_bytes", key, nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fettle_datasets")),
        sa.UniqueConstraint("public_id", name=op.f("uq_fettle_datasets_public_id")),
        sa.UniqueConstraint("project", "name", name=op.f("uq_fettle_datasets_project_name")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_fettle_datasets_listing", "fettle_datasets", ["project", "id"])
    op.create_index("ix_fettle_datasets_object_hash", "fettle_datasets", ["object_hash"])
    op.create_table(
        "fettle_study_datasets",
        sa.Column("study_id", key, nullable=False),
        sa.Column("dataset_id", key, nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["fettle_studies.id"], name=op.f("fk_fettle_study_datasets_study_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["fettle_datasets.id"], name=op.f("fk_fettle_study_datasets_dataset_id")
        ),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_fettle_study_datasets")),
    )
    op.create_index("ix_fettle_study_datasets_dataset_id", "fettle_study_datasets", ["dataset_id"])


def downgrade() -> None:
    """Take the schema back to the one before."""
    op.drop_table("fettle_study_datasets")
    op.drop_table("fettle_datasets")
