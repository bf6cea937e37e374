"""Letters before they have an address, and the e-mail message each becomes."""

from __future__ import annotations

from dataclasses import dataclass
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import TYPE_CHECKING

from notifications.errors import UnsafeHeaderError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from notifications.inline_images import InlineImage

#: Longer subjects are cut by mail programs anyway.
MAX_SUBJECT = 200
#: RFC 5321, 4.5.3.1.3: a path is at most 256 octets with its brackets.
MAX_ADDRESS = 254


@dataclass(frozen=True, slots=True)
class Attachment:
    """One file of a letter."""

    filename: str
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Letter:
    """What is said, whoever will read it."""

    subject: str
    text: str
    html: str | None = None
    attachments: tuple[Attachment, ...] = ()
    #: What `html` names as `cid:`.
    images: tuple[InlineImage, ...] = ()


def checked_header(text: str, *, limit: int = MAX_SUBJECT) -> str:
    """Return the text if it can stand in one header line, without control characters and within the limit."""
    if any(character < " " or character == "\x7f" for character in text) or "\u2028" in text:
        message = f"a header cannot hold line breaks or control characters: {text[:80]!r}"
        raise UnsafeHeaderError(message)
    if not text.strip() or len(text) > limit:
        message = f"a header holds 1 to {limit} characters, this one has {len(text)}"
        raise UnsafeHeaderError(message)
    return text


def checked_address(text: str) -> str:
    """Return the address if it is one plain `local@domain`."""
    checked_header(text, limit=MAX_ADDRESS)
    try:
        address = Address(addr_spec=text)
    except (ValueError, IndexError, MessageError) as error:
        message = f"not an e-mail address: {text[:80]!r}"
        raise UnsafeHeaderError(message) from error
    if not address.username or not address.domain or any(character in text for character in ' ,;<>"'):
        message = f"an e-mail address is one local@domain, not {text[:80]!r}"
        raise UnsafeHeaderError(message)
    return text


def compose(
    letter: Letter, *, sender: str, recipients: Sequence[str], delivery: UUID, written: datetime
) -> EmailMessage:
    """Make the message of one delivery; the same delivery always has the same Message-ID and date."""
    message = EmailMessage(policy=SMTP)
    message["From"] = Address("Carillon", addr_spec=checked_address(sender))
    message["To"] = [Address(addr_spec=checked_address(recipient)) for recipient in recipients]
    message["Subject"] = checked_header(letter.subject)
    message["Date"] = format_datetime(written)
    message["Message-ID"] = f"<{delivery}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.text)
    if letter.html is not None:
        message.add_alternative(letter.html, subtype="html")
        _show(message, letter.images)
    _attach(message, letter.attachments)
    return message


def _show(message: EmailMessage, images: Iterable[InlineImage]) -> None:
    page = message.get_body(("html",))
    if page is None:
        return
    for image in images:
        page.add_related(image.content, "image", image.kind, cid=f"<{image.id}>", disposition="inline")


def _attach(message: EmailMessage, attachments: Iterable[Attachment]) -> None:
    for attachment in attachments:
        main, _, sub = attachment.media_type.partition(";")[0].strip().partition("/")
        message.add_attachment(
            attachment.content,
            maintype=main or "application",
            subtype=sub or "octet-stream",
            filename=checked_header(attachment.filename),
        )
