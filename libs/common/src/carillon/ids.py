"""Identifiers: time-ordered for new things, derived for things with a known cause (RFC 9562)."""

from __future__ import annotations

import os
import time
from uuid import UUID, uuid5

#: The namespace of every derived id. Changing it would run old causes twice.
NAMESPACE = UUID("8e2a7f52-3d3b-5c1c-9a3e-6f5e0c1d9b47")


def new_id() -> UUID:
    """A UUIDv7: 48 bits of Unix milliseconds, then 74 random bits (RFC 9562, 5.7)."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return UUID(int=value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)


def derived_id(*cause: str) -> UUID:
    """The UUIDv5 of a cause. Parts are length-prefixed, so no two causes share a spelling."""
    return uuid5(NAMESPACE, "".join(f"{len(part)}:{part}" for part in cause))


def keyed_id(task: str, key: str, *, actor: str | None = None, place: int | None = None) -> UUID:
    """The id of the run of a task that an idempotency key stands for.

    Over HTTP a key is its `actor`'s own. `place`, counted from 0, sets those apart that were submitted together under
    one key.
    """
    whose = () if actor is None else (actor,)
    return derived_id("key", *whose, task, key, *(() if place is None else (str(place),)))
