"""What policies keep for all workers: breakers, effects that must not happen twice, last good values, and places."""

from alembic import op

revision = "0008"
down_revision = "0007"
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
    op.execute("""
        create table carillon.effects (
            name text not null,
            key text not null,
            arguments text not null,
            owner uuid not null,
            leased_until timestamptz not null,
            result text,
            kept_until timestamptz not null,
            constraint pk_effects primary key (name, key)
        )
    """)
    op.execute("create index ix_effects_kept on carillon.effects (kept_until)")
    op.execute("""
        create table carillon.last_good (
            name text not null,
            key text not null,
            value text not null,
            at timestamptz not null,
            kept_until timestamptz not null,
            constraint pk_last_good primary key (name, key)
        )
    """)
    op.execute("create index ix_last_good_kept on carillon.last_good (kept_until)")
    op.execute("""
        create table carillon.places (
            owner uuid not null constraint pk_places primary key,
            name text not null,
            leased_until timestamptz not null
        )
    """)
    op.execute("create index ix_places_name on carillon.places (name)")


def downgrade() -> None:
    """Take back."""
    op.execute("drop table carillon.places")
    op.execute("drop table carillon.last_good")
    op.execute("drop table carillon.effects")
    op.execute("drop table carillon.breakers")
