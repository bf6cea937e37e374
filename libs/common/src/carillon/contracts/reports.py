"""What reports says."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from carillon.contracts.event import Event


class Artefact(BaseModel):
    """One rendered file, kept in the platform's storage."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    format: Literal["html", "pdf", "csv", "xlsx", "json"]
    filename: str
    media_type: str
    key: str
    size_bytes: int = Field(ge=0)
    sha256: str
    """SHA-256 of the file, in hexadecimal."""


class ReportRendered(Event):
    """Said by reports once every format of a report was rendered, checked and kept."""

    type: ClassVar[str] = "reports.report_rendered.v1"
    subject_field: ClassVar[str] = "report"

    report: str
    title: str
    summary: str
    """A few sentences that stand in a message without the files."""
    as_of: datetime
    artefacts: list[Artefact]
