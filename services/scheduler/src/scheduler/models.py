"""Where it is kept who led: the tables of the schema `scheduler`. Schedules and fires are in the ledger."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Identity, Integer, MetaData, Table, Text, func

metadata = MetaData(schema="scheduler", naming_convention={"pk": "pk_%(table_name)s"})

leaders = Table(
    "leaders",
    metadata,
    # Grows with each change of leader; a scheduler whose epoch is not the newest decides nothing.
    Column("epoch", BigInteger, Identity(always=True), primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("led_from", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
