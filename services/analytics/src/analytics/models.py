"""The tables of analytics: rollups by the hour and the day, and what has to be computed anew."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Double, MetaData, Table, Text

metadata = MetaData(schema="analytics")


def _rollups(name: str) -> Table:
    return Table(
        name,
        metadata,
        #: The start of the bucket, in UTC.
        Column("bucket", DateTime(timezone=True), primary_key=True),
        Column("kind", Text, primary_key=True),
        #: The task's name or the event's type.
        Column("name", Text, primary_key=True),
        #: The run's state; `said` for events.
        Column("state", Text, primary_key=True),
        Column("count", BigInteger, nullable=False),
        #: Sum of execution times; 0 for events.
        Column("seconds", Double, nullable=False),
        CheckConstraint("kind in ('run', 'event')", name=f"ck_{name}_kind"),
    )


hourly_rollups = _rollups("hourly_rollups")
daily_rollups = _rollups("daily_rollups")

#: Days whose hours were computed anew since the day was.
dirty_days = Table("dirty_days", metadata, Column("bucket", DateTime(timezone=True), primary_key=True))

#: Up to when the ledger was counted; one row.
watermarks = Table(
    "watermarks",
    metadata,
    Column("grain", Text, primary_key=True),
    Column("watermark", DateTime(timezone=True), nullable=False),
)
