"""How many runs of a selection had changed since its preview."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    skipped = sa.Column("skipped", sa.Integer(), nullable=False, server_default="0")
    op.add_column("selections", skipped, schema="carillon")


def downgrade() -> None:
    """Take back."""
    op.drop_column("selections", "skipped", schema="carillon")
