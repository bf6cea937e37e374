"""A delivery as bytes, for transports that carry it outside of the ledger."""

from __future__ import annotations

import orjson
from pydantic import TypeAdapter, ValidationError

from carillon.ledger.records import Delivery

_DELIVERY = TypeAdapter(Delivery)


def encode(delivery: Delivery) -> bytes:
    """A delivery as one JSON object."""
    # The ids that asyncpg reads are of a type of its own.
    return orjson.dumps(delivery, default=str)


def decode(body: bytes) -> Delivery:
    """The delivery in these bytes, which anybody may have sent; raises ValueError saying what is wrong with them."""
    try:
        return _DELIVERY.validate_json(body)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'message'}: {e['msg']}" for e in error.errors()[:5]]
        raise ValueError("; ".join(faults)) from None
