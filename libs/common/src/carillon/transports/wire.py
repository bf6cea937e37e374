"""A delivery as bytes, for transports that carry it outside of the ledger."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import orjson
from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from carillon.ledger.records import Delivery

#: What PostgreSQL's integer can hold, and no less than nothing.
Number = Annotated[int, Field(ge=0, lt=2**31)]


class _Cause(BaseModel):
    id: str
    type: str
    source: str
    time: AwareDatetime


class _Wire(BaseModel):
    """What a delivery must look like; anybody may publish to a queue."""

    id: UUID
    attempt: Number
    uncounted: Number = 0
    task: str
    args: dict[str, Any]
    labels: dict[str, str] | None = None
    cause: _Cause | None = None
    traceparent: str | None = None
    given_at: float = 0


def encode(delivery: Delivery) -> bytes:
    """A delivery as one JSON object."""
    return orjson.dumps(
        {
            "id": str(delivery.id),
            "attempt": delivery.attempt,
            "uncounted": delivery.uncounted,
            "task": delivery.task,
            "args": delivery.args,
            "labels": delivery.labels,
            "cause": delivery.cause,
            "traceparent": delivery.traceparent,
            "given_at": delivery.given_at,
        }
    )


def decode(body: bytes) -> Delivery:
    """The delivery in these bytes; raises ValueError saying what is wrong when there is none."""
    try:
        wire = _Wire.model_validate_json(body)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'message'}: {e['msg']}" for e in error.errors()[:5]]
        raise ValueError("; ".join(faults)) from None
    return Delivery(
        id=wire.id,
        attempt=wire.attempt,
        uncounted=wire.uncounted,
        task=wire.task,
        args=wire.args,
        labels=wire.labels or {},
        cause=None if wire.cause is None else wire.cause.model_dump(mode="json"),
        traceparent=wire.traceparent,
        given_at=wire.given_at,
    )
