"""Projects with quotas, API keys, the audit log"""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
# Older code would serve whoever asks, whatever keys there are, and reserve beyond quotas.
compatible_from = "0011"
loses = "projects with their quotas, API keys and the audit log: the service is open again, or refuses to start"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring the schema to this revision."""
    projects = op.create_table(
        "fettle_projects",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("max_studies", BIG, nullable=True),
        sa.Column("max_running_trials", BIG, nullable=True),
        sa.Column("max_stored_bytes", BIG, nullable=True),
        sa.Column("created_by", sa.String(128), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_fettle_projects"),
    )
    op.create_table(
        "fettle_keys",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("public_id", sa.String(40), nullable=False),
        sa.Column("project", sa.String(128), nullable=False),
        sa.Column("all_projects", sa.Boolean(), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("old_hash", sa.String(64), nullable=True),
        sa.Column("old_expires_at", sa.Double(), nullable=True),
        sa.Column("secret_mark", sa.String(16), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("last_used_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_fettle_keys"),
        sa.UniqueConstraint("public_id", name="uq_fettle_keys_public_id"),
        sqlite_autoincrement=True,
    )
    unrevoked = sa.text("revoked_at IS NULL")
    op.create_index(
        "ix_fettle_keys_name",
        "fettle_keys",
        ["project", "name"],
        unique=True,
        sqlite_where=unrevoked,
        postgresql_where=unrevoked,
    )
    op.create_index("ix_fettle_keys_listing", "fettle_keys", ["project", "id"])
    op.create_table(
        "fettle_audit",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("project", sa.String(128), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("key_id", sa.String(40), nullable=True),
        sa.Column("actor", sa.String(128), nullable=True),
        sa.Column("request_id", sa.String(128), nullable=True),
        sa.Column("address", sa.String(64), nullable=True),
        sa.Column("details", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_fettle_audit"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_fettle_audit_listing", "fettle_audit", ["project", "id"])
    used = op.get_bind().execute(
        sa.text("SELECT project FROM fettle_studies UNION SELECT project FROM fettle_datasets")
    )
    names = sorted({"default", *used.scalars()})
    at = time.time()
    op.bulk_insert(projects, [{"name": name, "description": "", "created_at": at} for name in names])


def downgrade() -> None:
    """Take the schema back to the one before."""
    op.drop_table("fettle_audit")
    op.drop_table("fettle_keys")
    op.drop_table("fettle_projects")
