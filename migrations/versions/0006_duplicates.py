"""The identity of trials, and whose result they reuse"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
loses = "what trials are equal to, and which trial a result was reused from"

IDENTIFIED = sa.text("identity IS NOT NULL")


def upgrade() -> None:
    """Bring the schema to this revision."""
    # Not in batch mode: SQLite need not copy the table for columns at its end that may be NULL.
    op.add_column("fettle_trials", sa.Column("identity", sa.String(32), nullable=True))
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.add_column("fettle_trials", sa.Column("reused_from", number, nullable=True))
    op.create_index(
        "ix_fettle_trials_identity",
        "fettle_trials",
        ["study_id", "identity"],
        sqlite_where=IDENTIFIED,
        postgresql_where=IDENTIFIED,
    )


def downgrade() -> None:
    """Take the schema back to the one before."""
    op.drop_index("ix_fettle_trials_identity", table_name="fettle_trials")
    # Not in batch mode: dropping the copied table would take what hangs on its trials along.
    op.drop_column("fettle_trials", "reused_from")
    op.drop_column("fettle_trials", "identity")
