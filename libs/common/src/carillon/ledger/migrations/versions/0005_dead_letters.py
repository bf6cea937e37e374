"""How long a message was of which only the beginning is kept; and messages in the order in which they came."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("dead_letters", sa.Column("size", sa.BigInteger(), nullable=True), schema="carillon")
    op.execute("create index ix_dead_letters_received on carillon.dead_letters (received_at)")
    op.execute("create index ix_dead_letters_group on carillon.dead_letters (fingerprint, received_at, id)")


def downgrade() -> None:
    """Take back: what was cut looks whole again."""
    op.execute("drop index carillon.ix_dead_letters_group")
    op.execute("drop index carillon.ix_dead_letters_received")
    op.drop_column("dead_letters", "size", schema="carillon")
