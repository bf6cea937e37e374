"""Events: taking them over HTTP, listing the newest, and the contracts they must fit."""

from __future__ import annotations

from uuid import UUID

from litestar import get, post

from carillon.cloudevents import BATCH, HTTP_PREFIXES, OWN, STRUCTURED, Envelope, UnreadableEventError, parse
from carillon.contracts.runs import RunEnded
from carillon.platform import Platform
from carillon.shapes import faults_of
from carillon.telemetry.traces import current_traceparent
from gateway.api.requests import Asked, Bodies, actor_of, query
from gateway.api.schedules import NEWEST
from gateway.api.views import EventList, EventTypeList, EventTypeView, EventView, RecordedEvent, RecordedEvents
from gateway.bodies import parse_json
from gateway.errors import INVALID, Fault, ProblemError, invalid

TAKEN = (STRUCTURED, BATCH, "application/json")
_MOST_TYPES = 50


@post("/api/v1/events", status_code=202, tags=["Events"])
async def take_events(request: Asked, platform: Platform, bodies: Bodies) -> RecordedEvents:
    """Take one CloudEvent, structured or binary, or a batch: all of it is recorded, or nothing."""
    envelopes = await _envelopes(request, bodies)
    await _check(platform, envelopes)
    new = await _record(platform, envelopes, actor_of(request))
    return RecordedEvents(
        events=[
            RecordedEvent(id=e.key, event_id=e.id, source=e.source, type=e.type, recorded=e.key in new)
            for e in envelopes
        ]
    )


@get("/api/v1/events", tags=["Events"])
async def list_events(request: Asked, platform: Platform) -> EventList:
    """The newest events."""
    rows = await platform.history.recent_events(query(request, NEWEST).get("limit", 50))
    return EventList(events=[EventView.of(row) for row in rows])


@get("/api/v1/event-types", tags=["Events"])
async def list_event_types(platform: Platform) -> EventTypeList:
    """Every type of event that a domain says or hears, with the schema of its data."""
    return EventTypeList(event_types=[EventTypeView.of(row) for row in await platform.catalogue.event_types()])


async def _envelopes(request: Asked, bodies: Bodies) -> list[Envelope]:
    body = await bodies.bytes(request, TAKEN)
    # Refuses what the envelope's own reader would let through: two meanings, or numbers that change.
    if body or "ce-type" not in request.headers:
        parse_json(body)
    try:
        envelopes = parse(body, request.headers.get("content-type", ""), request.headers, HTTP_PREFIXES)
    except UnreadableEventError as error:
        detail = str(error)[:500]
        raise ProblemError(INVALID, detail, faults=[Fault("event", detail)]) from None
    traceparent = current_traceparent()
    return [
        envelope if envelope.traceparent else envelope.model_copy(update={"traceparent": traceparent})
        for envelope in envelopes
    ]


async def _record(platform: Platform, envelopes: list[Envelope], actor: str) -> set[UUID]:
    # One statement, so that a batch is recorded whole or not at all.
    different = list({envelope.key: envelope for envelope in envelopes}.values())
    events = {envelope.key: envelope.new_event(actor=actor) for envelope in different}
    new = await platform.ledger.say(list(events.values()), await platform.answers(different))
    await platform.publish([event for key, event in events.items() if key in new])
    return new


async def _check(platform: Platform, envelopes: list[Envelope]) -> None:
    contracts = {row["type"]: row["schema"] for row in await platform.catalogue.event_types()}
    faults: list[Fault] = []
    for index, envelope in enumerate(envelopes):
        place = f"/{index}" if len(envelopes) > 1 else ""
        if envelope.source.startswith(OWN):
            faults.append(Fault(f"{place}/source", f"begins with {OWN}, as only what runs say does; name your own"))
        elif envelope.type == RunEnded.type:
            faults.append(Fault(f"{place}/type", "is said by the platform alone, when a run has ended"))
        elif envelope.type not in contracts:
            known = ", ".join(list(contracts)[:_MOST_TYPES]) or "none yet: start a service"
            faults.append(Fault(f"{place}/type", f"is not a known type of event; there are {known}"))
        else:
            faults += faults_of(envelope.data, contracts[envelope.type], f"{place}/data")
    if faults:
        raise invalid(*faults[:20])
