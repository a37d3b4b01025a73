"""How long the leases of trials that outside programs train are given for"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
loses = "how long leases of external trials were asked for: renewals take the default"


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("fettle_trials", sa.Column("lease_seconds", sa.Double(), nullable=True))


def downgrade() -> None:
    """Take the schema back to the one before."""
    op.drop_column("fettle_trials", "lease_seconds")
