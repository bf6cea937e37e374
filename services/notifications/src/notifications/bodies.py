"""Writes the text and HTML of the letters that notifications sends by itself."""

from __future__ import annotations

from html import escape
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from notifications.artefacts import fitting
from notifications.inline_images import taken_out
from notifications.letters import MAX_SUBJECT, Letter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from carillon.contracts import Artefact, BackupFailed, ReportRendered
    from notifications.artefacts import Shelf
    from notifications.inline_images import InlineImage
    from notifications.letters import Attachment

#: Mail programs cut longer bodies off (Gmail at 102 KB).
MAX_HTML_BODY = 100_000
#: What mail programs drop or block, so that a page with it would arrive broken.
UNSAFE_TAGS = frozenset({"script", "svg", "iframe", "link", "object", "embed", "form", "base", "video", "canvas"})

PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body style="margin:0;padding:24px;background:#f5f5f2;color:#1c1c1a;font:16px/1.5 sans-serif">
<table role="presentation" width="100%"
 style="max-width:640px;margin:0 auto;background:#ffffff;border:1px solid #deded8">
<tr><td style="padding:24px">
<h1 style="margin:0 0 12px;font-size:22px;line-height:1.3">{title}</h1>
{paragraphs}
{files}
<p style="margin:16px 0 0;color:#62625c;font-size:13px">As of {as_of}.</p>
</td></tr></table>
</body></html>
"""


class _MailSafety(HTMLParser):
    """Notices what would not survive a mail program."""

    safe = True

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Mark the page unsafe at a tag or an image that mail programs refuse."""
        embedded = any((value or "").lstrip().startswith("data:") for _, value in attrs)
        if tag in UNSAFE_TAGS or embedded or any(name.startswith("on") for name, _ in attrs):
            self.safe = False


def is_mail_safe(page: str) -> bool:
    """Whether mail programs would show this page as it is."""
    parser = _MailSafety()
    parser.feed(page)
    return parser.safe and len(page) <= MAX_HTML_BODY


class Clerk:
    """Writes letters about reports, with the files from the shelf."""

    def __init__(self, shelf: Shelf, *, attachment_limit: int) -> None:
        self._shelf = shelf
        self._attachment_limit = attachment_limit

    async def report_letter(self, event: ReportRendered) -> Letter:
        """Write the letter of a report: its summary, and as many of its files as fit."""
        taken, left = fitting(event.artefacts, self._attachment_limit)
        files = [await self._shelf.read(artefact) for artefact in taken]
        page, images = _shown(files) or (_report_page(event, taken, left), ())
        return Letter(as_subject(event.title), _report_text(event, taken, left), page, tuple(files), images)


def _shown(files: Iterable[Attachment]) -> tuple[str, tuple[InlineImage, ...]] | None:
    """Return the first page among the files that mail programs show as it is, with its images beside it."""
    for file in files:
        if file.media_type.startswith("text/html"):
            page, images = taken_out(file.content.decode("utf-8", "replace"))
            if is_mail_safe(page):
                return page, images
    return None


def failure_letter(event: BackupFailed) -> Letter:
    """Write the alert of a backup that could not be made or proven."""
    return Letter(
        subject=as_subject(f"Backup of {event.source} failed"),
        text=(
            f"The backup of {event.source} failed at the step '{event.stage}', and no attempt is left.\n\n"
            f"{event.reason}\n\n"
            "The last proven backup is untouched. Mend the cause, then ask for a backup again.\n"
        ),
    )


def as_subject(text: str) -> str:
    """Fit a title from another service into one header line: it is ours to mend, not theirs to be refused for."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line[:MAX_SUBJECT] or "(no subject)"


def _report_text(event: ReportRendered, taken: Iterable[Artefact], left: Iterable[Artefact]) -> str:
    lines = [event.title, "", event.summary, "", f"As of {event.as_of:%Y-%m-%d %H:%M %Z}."]
    lines += [f"Attached: {_named(artefact)}" for artefact in taken]
    lines += [f"Too large to attach, kept at {artefact.key}: {_named(artefact)}" for artefact in left]
    return "\n".join(lines) + "\n"


def _report_page(event: ReportRendered, taken: Iterable[Artefact], left: Iterable[Artefact]) -> str:
    names = [_named(artefact) for artefact in taken]
    names += [f"{_named(artefact)}, too large to attach, kept at {artefact.key}" for artefact in left]
    items = "".join(f"<li>{escape(name)}</li>" for name in names)
    paragraphs = (part.strip() for part in event.summary.split("\n\n"))
    return PAGE.format(
        title=escape(event.title),
        paragraphs="\n".join(f'<p style="margin:0 0 12px">{escape(part)}</p>' for part in paragraphs if part),
        files=f'<ul style="margin:0;padding-left:20px">{items}</ul>' if items else "",
        as_of=escape(f"{event.as_of:%Y-%m-%d %H:%M %Z}"),
    )


def _named(artefact: Artefact) -> str:
    return f"{artefact.filename} ({max(1, round(artefact.size_bytes / 1024))} KB)"
