"""The table of leaders."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create `scheduler.leaders`."""
    op.create_table(
        "leaders",
        sa.Column("epoch", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("led_from", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("epoch", name="pk_leaders"),
        schema="scheduler",
    )


def downgrade() -> None:
    """Drop `scheduler.leaders`."""
    op.drop_table("leaders", schema="scheduler")
