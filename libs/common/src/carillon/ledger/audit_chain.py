"""The chain of the audit trail: what is hashed of an entry, and following it from the first entry to the newest.

A chain that was cut at its end, or computed anew as a whole, still holds. The first is noticed because
`carillon.audit_head` names the newest entry, the second when an entry was noted outside the database.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Text, cast, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from carillon.ledger.tables import audit, audit_head

#: Entries that are read and checked at once; other coroutines wait some milliseconds for a stretch.
STRETCH = 500


class Link(NamedTuple):
    """An entry as the chain knows it. Noted elsewhere, it proves later that nothing up to it was written anew."""

    seq: int
    hash: str


#: What the first entry follows.
BEGINNING = Link(0, "0" * 64)


class Break(NamedTuple):
    """The first entry with which the chain does not hold, and why."""

    seq: int
    fault: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far the chain holds: up to this entry, which is the newest one unless it is broken."""

    sound: Link
    broken: Break | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """What is hashed of an entry."""

    seq: int
    at: datetime
    actor: str
    origin: str
    action: str
    subject: str
    reason: str | None
    #: As it is stored, to the character.
    details: str
    previous: str

    def line(self) -> bytes:
        """The JSON text whose SHA-256 is the entry's hash: names in alphabetical order, and no spaces."""
        return (
            f'{{"action":{canonical(self.action)}'
            f',"actor":{canonical(self.actor)}'
            f',"at":{canonical(spelled(self.at))}'
            f',"details":{self.details}'
            f',"origin":{canonical(self.origin)}'
            f',"previous":{canonical(self.previous)}'
            f',"reason":{canonical(self.reason)}'
            f',"seq":{self.seq}'
            f',"subject":{canonical(self.subject)}}}'
        ).encode()

    def fault(self, hash_: str, before: Link) -> Break | None:
        """Why this entry, with this hash, is not the one after `before`."""
        if self.seq != before.seq + 1:
            return Break(before.seq + 1, "is missing")
        if hashlib.sha256(self.line()).hexdigest() != hash_:
            return Break(self.seq, "was changed: its hash is not that of its fields")
        if self.previous != before.hash:
            return Break(self.seq, f"does not follow entry {before.seq}: one of the two was written anew")
        return None


_encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: object) -> str:
    """JSON with sorted names, no spaces, and every character that need not be escaped as itself."""
    return _encoder.encode(value)


def spelled(moment: datetime) -> str:
    """A moment as the trail writes it: UTC with six digits of a second."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


async def verify(engine: AsyncEngine, noted: Link | None = None) -> Verdict:
    """Follow the chain as it is at one moment, `STRETCH` entries in memory at a time.

    With an entry that was `noted` outside the database, also a chain that was computed anew is found out.
    """
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        sound = BEGINNING
        while stretch := await _after(sound, connection):
            for fields, hash_ in stretch:
                found = Link(fields.seq, hash_)
                if broken := fields.fault(hash_, sound) or _contradiction(found, noted):
                    return Verdict(sound, broken)
                sound = found
        row = (await connection.execute(select(audit_head.c.seq, audit_head.c.hash))).one_or_none()
    return Verdict(sound, _end_fault(sound, None if row is None else Link(*row), noted or BEGINNING))


_NAMES = tuple(Fields.__dataclass_fields__)
_COLUMNS = [cast(audit.c[name], Text) if name == "details" else audit.c[name] for name in _NAMES]


async def _after(link: Link, connection: AsyncConnection) -> list[tuple[Fields, str]]:
    query = select(*_COLUMNS, audit.c.hash).where(audit.c.seq > link.seq).order_by(audit.c.seq).limit(STRETCH)
    rows = await connection.execute(query)
    return [(Fields(**dict(zip(_NAMES, values, strict=True))), hash_) for *values, hash_ in rows]


def _contradiction(found: Link, noted: Link | None) -> Break | None:
    if noted is None or noted.seq != found.seq or noted.hash == found.hash:
        return None
    return Break(found.seq, "is not the one that was noted: it, or one before it, was written anew")


def _end_fault(sound: Link, head: Link | None, noted: Link) -> Break | None:
    """What is wrong at the end of a chain that holds as far as it goes."""
    if head is None:
        return Break(sound.seq + 1, "cannot be entered: carillon.audit_head lost its row")
    if (newest := max(head.seq, noted.seq)) > sound.seq:
        return Break(sound.seq + 1, f"is missing, as is everything up to entry {newest}")
    if head != sound:
        return Break(min(head.seq + 1, sound.seq), "is not the one that carillon.audit_head names as the newest")
    return None
