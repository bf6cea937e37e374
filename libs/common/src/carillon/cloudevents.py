"""CloudEvents 1.0: the envelope of every event, in its JSON format and in the binary modes of HTTP and AMQP.

Sources: CloudEvents 1.0.2 core, JSON event format, HTTP protocol binding (`ce-` headers) and AMQP protocol binding
(`cloudEvents:` or `cloudEvents_` application properties).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, Self
from urllib.parse import unquote
from uuid import UUID

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from carillon import clock
from carillon.contracts.event import EVENT_TYPE, Event
from carillon.ids import derived_id, new_id
from carillon.jsonb import holds_nul
from carillon.ledger.records import NewEvent

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
HTTP_PREFIXES = ("ce-",)
AMQP_PREFIXES = ("cloudEvents:", "cloudEvents_")
#: What the sources of events begin with that runs and the platform say.
OWN = "/carillon/"
#: An event may not claim to be from further in the future than clocks drift.
FUTURE = timedelta(minutes=5)
#: Larger data belongs in storage, with its key in the event.
MOST_BYTES = 256 * 1024


class UnreadableEventError(ValueError):
    """These bytes are not a CloudEvent; the message says what is wrong with them."""


class Envelope(BaseModel):
    """One CloudEvent. Unknown attributes are extensions and are not kept, but for `traceparent`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    specversion: Literal["1.0"] = "1.0"
    id: str = Field(default_factory=lambda: str(new_id()), min_length=1, max_length=256)
    source: str = Field(min_length=1, max_length=256)
    type: str = Field(pattern=EVENT_TYPE.pattern.replace("(?=.{1,128}$)", ""), max_length=128)
    subject: str | None = Field(default=None, min_length=1, max_length=256)
    time: AwareDatetime = Field(default_factory=clock.now)
    datacontenttype: str = "application/json"
    traceparent: str | None = Field(default=None, pattern="^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")
    data: dict[str, Any] = Field(default_factory=dict)

    @field_validator("time")
    @classmethod
    def _not_in_the_future(cls, time: datetime) -> datetime:
        if time > clock.now() + FUTURE:
            message = "lies in the future; check the sender's clock"
            raise ValueError(message)
        return time

    @field_validator("datacontenttype")
    @classmethod
    def _json_only(cls, media_type: str) -> str:
        if _bare(media_type) != "application/json":
            message = "must be application/json; other data belongs in storage, with its key in the event"
            raise ValueError(message)
        return media_type

    @field_validator("id", "source", "subject")
    @classmethod
    def _printable(cls, value: str | None) -> str | None:
        if value is not None and not value.isprintable():
            message = "has characters that cannot be printed"
            raise ValueError(message)
        return value

    @property
    def key(self) -> UUID:
        """The ledger's id of this event: source and id together are unique."""
        return derived_id("event", self.source, self.id)

    @classmethod
    def of(cls, event: Event, *, source: str, id: str | None = None, traceparent: str | None = None) -> Self:  # noqa: A002
        """Wrap the data of a contract."""
        named = {"id": id} if id is not None else {}
        return cls(
            source=source,
            type=event.type,
            subject=event.subject,
            traceparent=traceparent,
            data=event.model_dump(mode="json"),
            **named,
        )

    def new_event(self, *, actor: str, run_id: UUID | None = None) -> NewEvent:
        """The row that records it."""
        return NewEvent(
            id=self.key,
            event_id=self.id,
            source=self.source,
            type=self.type,
            time=self.time,
            data=orjson.dumps(self.data).decode(),
            subject=self.subject,
            run_id=run_id,
            actor=actor,
            traceparent=self.traceparent,
        )

    def structured(self) -> bytes:
        """The JSON event format."""
        return self.model_dump_json(exclude_none=True).encode()


def from_ledger(event: NewEvent) -> Envelope:
    """The envelope that an event's row was made from."""
    return Envelope.model_construct(
        id=event.event_id,
        source=event.source,
        type=event.type,
        subject=event.subject,
        time=event.time,
        traceparent=event.traceparent,
        data=orjson.loads(event.data),
    )


def parse(body: bytes, content_type: str, headers: Mapping[str, object], prefixes: Iterable[str]) -> list[Envelope]:
    """Read one message in any of the three modes; raises `UnreadableEventError`.

    `headers` are the transport's; those that begin with one of `prefixes` are attributes in binary mode.
    """
    if len(body) > MOST_BYTES:
        message = f"{len(body)} bytes are more than {MOST_BYTES}; keep the data in storage and send its key"
        raise UnreadableEventError(message)
    media_type = _bare(content_type)
    if media_type == BATCH:
        entries = _json(body)
        if not isinstance(entries, list) or not 1 <= len(entries) <= 500:  # noqa: PLR2004 - the bound of a batch
            message = "a batch is a JSON array of 1 to 500 events"
            raise UnreadableEventError(message)
        return [_envelope(entry) for entry in entries]
    if media_type == STRUCTURED:
        return [_envelope(_json(body))]
    attributes = _attributes(headers, prefixes)
    if not attributes:
        message = f"send {STRUCTURED}, {BATCH}, or the event's attributes as headers (binary mode)"
        raise UnreadableEventError(message)
    return [
        _envelope({**attributes, "datacontenttype": media_type or "application/json", "data": _json(body or b"{}")})
    ]


def _attributes(headers: Mapping[str, object], prefixes: Iterable[str]) -> dict[str, str]:
    found = {}
    for name, value in headers.items():
        for prefix in prefixes:
            if name.lower().startswith(prefix.lower()):
                text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
                found[name[len(prefix) :].lower()] = unquote(text) if prefix == "ce-" else text
    return found


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        message = f"the body is not JSON: {error}"
        raise UnreadableEventError(message) from None


def _envelope(attributes: object) -> Envelope:
    if isinstance(attributes, dict) and "data_base64" in attributes:
        message = "data_base64 is not taken; send JSON in `data`"
        raise UnreadableEventError(message)
    if isinstance(attributes, dict) and "specversion" not in attributes:
        message = "specversion is missing; CloudEvents need specversion 1.0"
        raise UnreadableEventError(message)
    try:
        envelope = Envelope.model_validate(attributes)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'event'}: {e['msg']}" for e in error.errors()[:5])
        message = f"not a CloudEvent that Carillon takes: {faults}"
        raise UnreadableEventError(message) from None
    if holds_nul(orjson.dumps(envelope.data)):
        message = "data: holds the character NUL, which PostgreSQL cannot keep"
        raise UnreadableEventError(message)
    return envelope


def _bare(media_type: str) -> str:
    return media_type.partition(";")[0].strip().lower()
