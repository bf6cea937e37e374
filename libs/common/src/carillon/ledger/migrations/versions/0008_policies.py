"""What policies keep for all workers: circuit breakers."""

from alembic import op

revision = "0008"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.execute("""
        create table carillon.breakers (
            name text not null constraint pk_breakers primary key,
            state text not null default 'closed'
                constraint ck_breakers_state check (state in ('closed', 'open', 'half_open')),
            failed_at timestamptz[] not null default '{}',
            retry_at timestamptz,
            pause interval,
            probe uuid,
            probe_until timestamptz,
            reason text,
            changes bigint not null default 0
        ) with (fillfactor = 50)
    """)


def downgrade() -> None:
    """Take back."""
    op.execute("drop table carillon.breakers")
