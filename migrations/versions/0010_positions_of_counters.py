"""The position of each study's last event, which the next one's is no lower than"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
# Older code appends events without noting where they stand in the firehose.
compatible_from = "0010"
loses = "where the last event of each study stands in the firehose; it is told anew"


def upgrade() -> None:
    """Bring the schema to this revision."""
    # Not in batch mode: SQLite need not copy the table for a column. Every transaction to come has a higher number than
    # those of the events that there are.
    column = sa.Column("last_position", sa.BigInteger(), nullable=False, server_default="0")
    op.add_column("fettle_event_counters", column)


def downgrade() -> None:
    """Take the schema back to the one before."""
    op.drop_column("fettle_event_counters", "last_position")
