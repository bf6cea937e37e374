"""Others that are asked over the network: a carrier, and a directory of users. Here they are played, without one."""

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from pydantic import BaseModel

from carillon.errors import TransientError
from orders.errors import NoAddressError

#: What the carrier that we play asks for a parcel.
PARCEL_CENTS = 4_90


class Quote(BaseModel):
    """What the carrier wants for a parcel."""

    order_id: str
    cents: int


class Profile(BaseModel):
    """What is known of a user."""

    user_id: str
    name: str


class Carrier(Protocol):
    """Whoever brings parcels."""

    async def quote(self, order_id: str) -> Quote:
        """What it would cost; raises `TransientError` where the carrier does not answer."""

    async def check_address(self, user_id: str) -> None:
        """Raise `NoAddressError` where no parcel can be brought."""


class Directory(Protocol):
    """Where users are kept: the service itself, and a copy of it that may be older."""

    async def profile(self, user_id: str) -> Profile:
        """What the service says; raises `TransientError` where it does not answer."""

    async def copied(self, user_id: str) -> Profile:
        """What the copy says; raises `TransientError` where it does not answer."""


class PlayedPartners:
    """Carrier and directory at once; those in `away` do not answer: `carrier`, `directory`, `copy`."""

    def __init__(self, away: Iterable[str] = ()) -> None:
        self.away = set(away)
        #: How often each was really asked.
        self.asked: Counter[str] = Counter()

    async def quote(self, order_id: str) -> Quote:
        """See `Carrier`."""
        self._ask("carrier")
        return Quote(order_id=order_id, cents=PARCEL_CENTS)

    async def check_address(self, user_id: str) -> None:
        """See `Carrier`: users whose name begins with `nowhere` have no address."""
        if user_id.startswith("nowhere"):
            message = f"the carrier knows no address of {user_id}; nothing was shipped"
            raise NoAddressError(message)

    async def profile(self, user_id: str) -> Profile:
        """See `Directory`."""
        self._ask("directory")
        return Profile(user_id=user_id, name=user_id.title())

    async def copied(self, user_id: str) -> Profile:
        """See `Directory`."""
        self._ask("copy")
        return Profile(user_id=user_id, name=user_id.title())

    def _ask(self, partner: str) -> None:
        self.asked[partner] += 1
        if partner in self.away:
            message = f"the {partner} does not answer"
            raise TransientError(message)
