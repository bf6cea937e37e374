"""The tables of the schema `reports`."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
)

metadata = MetaData(schema="reports")

#: One row per report that was rendered, checked and kept; its id is the run's.
reports = Table(
    "reports",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("report", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("as_of", DateTime(timezone=True), nullable=False),
    Column("data_sha256", Text, nullable=False),
    Column("rendered_at", DateTime(timezone=True), nullable=False, server_default=func.now(), index=True),
)

#: The files of a report, in the order in which they are announced.
artefacts = Table(
    "artefacts",
    metadata,
    Column("report_id", Uuid, ForeignKey("reports.reports.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("format", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("key", Text, nullable=False, unique=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("as_of", DateTime(timezone=True), nullable=False),
)

#: The youngest rollups heard for each report, as they were said.
datasets = Table(
    "datasets",
    metadata,
    Column("report", Text, primary_key=True),
    Column("as_of", DateTime(timezone=True), nullable=False),
    # json, not jsonb: kept as it was said, whatever signs a name in it has.
    Column("rollups", JSON, nullable=False),
    Column("heard_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

#: What was heard of each day, from which reports over any period are made; a row a day, and none is ever deleted.
days = Table(
    "days",
    metadata,
    #: In UTC.
    Column("day", Date, primary_key=True),
    #: Up to when it was counted.
    Column("as_of", DateTime(timezone=True), nullable=False),
    # json, as above.
    Column("rows", JSON, nullable=False),
)
