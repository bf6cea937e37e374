"""The port that every transport implements. One conformance suite holds for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, Self
from uuid import UUID

from carillon.cloudevents import Envelope
from carillon.contracts import Event
from carillon.ledger.records import Delivery, Priority

#: Of so many starts of a worker one goes to the run that waits longest, whatever its priority; the others to the most
#: urgent. So nothing starves: under a steady stream of urgent work the rest keeps a tenth.
PATIENT_EVERY = 10

#: Under which name the type of a message's content is kept among its headers.
CONTENT_TYPE = "content-type"

#: Says to the transport that a delivery is done with. Never raises: an acknowledgement that is lost means that the
#: delivery comes again, and the fence drops it.
Acknowledge = Callable[[], Awaitable[None]]
#: Takes a delivery, and acknowledges it when its end is in the ledger.
Execute = Callable[[Delivery, Acknowledge], Awaitable[None]]
#: Keeps a message that nobody could read: queue, reason, body, headers.
Bury = Callable[[str, str, bytes, dict[str, Any]], Awaitable[None]]
#: Submits the runs that answer an event; returns when they are committed.
Hear = Callable[[Envelope], Awaitable[None]]


#: Pause when what is due may not be taken: it is held, or expired, or there is no room for it.
REFUSED_SECONDS = 0.2
#: No pause is shorter, for the clocks of two machines are not the same.
SHORTEST_SECONDS = 0.005


def pause_until(due: float, looked: float) -> float:
    """How long to rest when the next run is due in so many seconds, negative ones too, after a look of so many seconds.

    What became due during the look is taken at once by the next; what was due before, and was not taken, may not be.
    """
    return max(due, SHORTEST_SECONDS) if due > -looked else REFUSED_SECONDS


class Consumer(Protocol):
    """Something that takes from a transport."""

    async def stop(self) -> None:
        """Take no more; what was taken goes on."""


class Transport(Protocol):
    """A fast way to reach workers. It may lose everything at any moment: the ledger sends again."""

    #: `rabbitmq` or `postgres`.
    name: str
    #: Whether the ledger itself carries runs and events, so that there is nothing to publish.
    is_ledger: bool

    async def __aenter__(self) -> Self:
        """Connect; raises `PlatformUnavailableError` saying what to check."""
        ...

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""

    async def dispatch(self, domain: str, deliveries: Sequence[Delivery]) -> list[UUID]:
        """Give runs to a domain's queue; returns those that it did not take within the deadline."""
        ...

    async def redeliver(self, queue: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Put a message into a queue as it once came; raises `PlatformUnavailableError` when it is not taken."""

    async def publish(self, envelopes: Sequence[Envelope]) -> list[UUID]:
        """Give events to everyone who hears them; returns the keys of those that it did not take."""
        ...

    async def consume(self, domain: str, worker: UUID, concurrency: int, execute: Execute) -> Consumer:
        """Take runs of a domain, at most `concurrency` at a time."""
        ...

    async def hear(self, domain: str, contracts: Sequence[type[Event]], hear: Hear) -> Consumer:
        """Take events of these types for a domain."""
        ...

    async def waiting(self, domain: str, priority: Priority) -> int | None:
        """How many runs of a priority lie in the domain's queue for it; None when it cannot be said."""
        ...

    def doubt(self, domain: str) -> None:
        """Hear that runs of a domain had to be sent again: perhaps its consumer here is not served any more."""

    async def fault(self) -> str | None:
        """What keeps it from carrying, as a sentence; None when nothing does."""
        ...
