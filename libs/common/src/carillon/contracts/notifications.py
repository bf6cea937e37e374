"""What notifications says."""

from __future__ import annotations

from typing import ClassVar, Literal

from carillon.contracts.event import Event


class NotificationDelivered(Event):
    """Said by notifications once one destination took one message."""

    type: ClassVar[str] = "notifications.notification_delivered.v1"
    subject_field: ClassVar[str] = "subject_line"

    channel: Literal["email", "maildir", "webhook"]
    destination: str
    """Where it went, without secrets: an address, a folder, or a URL without its query."""
    subject_line: str
    cause: str
    """The event that asked for it."""
