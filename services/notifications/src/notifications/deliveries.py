"""What a delivery is, and the log that keeps one row for each message to each destination."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, Protocol

from carillon.ids import derived_id

if TYPE_CHECKING:
    from uuid import UUID

Channel = Literal["email", "maildir", "webhook"]
#: `deferred` is tried again by the run's next attempt; `refused` waits for a person, who may replay the run.
State = Literal["pending", "delivered", "deferred", "refused"]
#: How much of an error is kept, in characters.
MAX_ERROR = 1000


@dataclass(frozen=True, slots=True)
class Cause:
    """The event or run that asked for a message."""

    id: str
    type: str


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message for one destination, before it is known whether it arrives."""

    cause: Cause
    channel: Channel
    destination: str
    subject: str

    @property
    def id(self) -> UUID:
        """The same for the same cause and destination, in every attempt and on every machine."""
        return derived_id("notifications", self.cause.id, self.channel, self.destination)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One parcel and how far it got."""

    parcel: Parcel
    state: State
    attempts: int
    created_at: datetime
    error: str | None = None


class DeliveryLog(Protocol):
    """Remembers what arrived where, so that nothing is sent again."""

    async def begin(self, parcel: Parcel) -> Delivery:
        """Return the parcel's row, made at the first attempt; counts an attempt unless it was delivered."""

    async def end(self, parcel: Parcel, state: State, error: str | None = None) -> Delivery:
        """Record how the attempt ended; a delivered row stays delivered."""


class RememberedDeliveries:
    """The log in memory: the twin of the one in PostgreSQL."""

    def __init__(self) -> None:
        self.rows: dict[UUID, Delivery] = {}

    async def begin(self, parcel: Parcel) -> Delivery:
        """See DeliveryLog."""
        row = self.rows.get(parcel.id) or Delivery(parcel, "pending", 0, datetime.now(UTC))
        if row.state != "delivered":
            row = replace(row, attempts=row.attempts + 1)
        self.rows[parcel.id] = row
        return row

    async def end(self, parcel: Parcel, state: State, error: str | None = None) -> Delivery:
        """See DeliveryLog."""
        row = self.rows[parcel.id]
        if row.state != "delivered":
            row = replace(row, state=state, error=storable(error))
        self.rows[parcel.id] = row
        return row


def storable(error: str | None) -> str | None:
    """Cut an error to what the log keeps; PostgreSQL's text cannot hold NUL."""
    return None if error is None else error.replace("\x00", "")[:MAX_ERROR]
