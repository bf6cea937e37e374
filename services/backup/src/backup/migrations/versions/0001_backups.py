"""The table of backups."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create `backup.backups`."""
    op.create_table(
        "backups",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key", sa.Text),
        sa.Column("stored_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.Text),
        sa.Column("plain_bytes", sa.BigInteger, nullable=False),
        sa.Column("plain_sha256", sa.Text),
        sa.Column("tables", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("manifest", JSONB),
        sa.Column("manifest_sha256", sa.Text),
        sa.Column("dump_seconds", sa.Double, nullable=False),
        sa.Column("restore_seconds", sa.Double, nullable=False),
        sa.Column("tools", JSONB, nullable=False),
        sa.Column("stage", sa.Text),
        sa.Column("reason", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_backups"),
        sa.CheckConstraint("state in ('dumped', 'proven', 'failed')", name="ck_backups_state"),
        schema="backup",
    )
    op.create_index("ix_backups_source_created_at", "backups", ["source", "created_at"], schema="backup")
    op.create_index("ix_backups_created_at", "backups", ["created_at"], schema="backup")


def downgrade() -> None:
    """Drop `backup.backups`."""
    op.drop_table("backups", schema="backup")
