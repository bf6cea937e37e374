"""What a rendered file is, and how the renderer tells the worker that one is wrong; both sides know this page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

    from reports.periods import Period

FileFormat = Literal["html", "pdf", "csv", "xlsx", "json"]

#: The renderer's exit code for files that do not add up (EX_DATAERR of sysexits.h).
UNEQUAL = 65
#: No renderer outlives this many seconds, not even one whose worker is gone.
LAST_RESORT_SECONDS = 600
#: In the order in which a message lists them.
MEDIA_TYPES: dict[FileFormat, str] = {
    "html": "text/html; charset=utf-8",
    "pdf": "application/pdf",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
}
#: What the operations report of the last 24 hours is written as, all of them each time.
OPERATIONS_FORMATS: tuple[FileFormat, ...] = ("html", "pdf", "xlsx", "csv")


class RenderedFile(NamedTuple):
    """One written and checked file, not kept yet."""

    format: FileFormat
    filename: str
    content: bytes


def stem(report: str, as_of: datetime) -> str:
    """The name of a report's files without their endings, as a person finds it among their downloads."""
    return f"{report}-report-{as_of:%Y-%m-%d-%H%M}"


def period_stem(period: Period) -> str:
    """The same of a report over a period."""
    return f"{period.report_type}-{period.start_date}-to-{period.end_date}"
