"""Page cursors: opaque to callers, valid only for the search that made them, and proven not to be forged."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson

from carillon.ledger.history import Cursor, StepPlace
from gateway.errors import Fault, ProblemError, invalid

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PROOF_BYTES = 16
_PLACE_BYTES = 24
_NUMBER_BYTES = 8
_SEQ_BYTES = 4
_DECISIONS = {"of": "decisions"}


class Cursors:
    """Writes and reads cursors with a secret that all gateways of an installation share."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def write(self, place: Cursor, search: Mapping[str, object]) -> str:
        """A cursor that continues this search after this row."""
        return self._sealed(_micros(place.created_at) + place.id.bytes, search)

    def read(self, cursor: str, search: Mapping[str, object]) -> Cursor:
        """The place a cursor names; raises `ProblemError` unless this search made it."""
        packed = self._opened(cursor, _PLACE_BYTES, search)
        return Cursor(_moment(packed[:8]), UUID(bytes=packed[8:]))

    def write_number(self, number: int, search: Mapping[str, object]) -> str:
        """A cursor that continues this search after the entry of this number."""
        return self._sealed(number.to_bytes(_NUMBER_BYTES, "big"), search)

    def read_number(self, cursor: str, search: Mapping[str, object]) -> int:
        """The number a cursor names; raises `ProblemError` unless this search made it."""
        return int.from_bytes(self._opened(cursor, _NUMBER_BYTES, search), "big")

    def write_step(self, place: StepPlace) -> str:
        """A cursor that continues the list of what workflows ask people after this one."""
        packed = _micros(place.at) + place.workflow.bytes + place.seq.to_bytes(_SEQ_BYTES, "big")
        return self._sealed(packed, _DECISIONS)

    def read_step(self, cursor: str) -> StepPlace:
        """The place a cursor names; raises `ProblemError` unless that list made it."""
        packed = self._opened(cursor, _PLACE_BYTES + _SEQ_BYTES, _DECISIONS)
        workflow = UUID(bytes=packed[8:_PLACE_BYTES])
        return StepPlace(_moment(packed[:8]), workflow, int.from_bytes(packed[_PLACE_BYTES:], "big"))

    def _sealed(self, packed: bytes, search: Mapping[str, object]) -> str:
        return base64.urlsafe_b64encode(packed + self._proof(packed, search)).decode().rstrip("=")

    def _opened(self, cursor: str, size: int, search: Mapping[str, object]) -> bytes:
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise _forged() from None
        packed, proof = raw[:size], raw[size:]
        if len(raw) != size + _PROOF_BYTES or not hmac.compare_digest(proof, self._proof(packed, search)):
            raise _forged()
        return packed

    def _proof(self, packed: bytes, search: Mapping[str, object]) -> bytes:
        text = orjson.dumps(search, option=orjson.OPT_SORT_KEYS)
        return hmac.digest(self._secret, packed + text, "sha256")[:_PROOF_BYTES]


def _micros(moment: datetime) -> bytes:
    return ((moment - _EPOCH) // _MICROSECOND).to_bytes(8, "big", signed=True)


def _moment(packed: bytes) -> datetime:
    return _EPOCH + int.from_bytes(packed, "big", signed=True) * _MICROSECOND


def _forged() -> ProblemError:
    return invalid(Fault("cursor", "does not belong to this search; use `next_cursor` with the same filters"))
