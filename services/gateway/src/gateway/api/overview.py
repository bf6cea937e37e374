"""The whole platform in one answer, once or as a stream."""

from __future__ import annotations

from litestar import get
from litestar.response import Stream

from gateway.api.overview_views import Overview
from gateway.live import Live, Picture


@get("/api/v1/overview", tags=["Overview"])
async def overview(picture: Picture) -> Overview:
    """What runs, waits, failed and is scheduled now; counts are of the last day."""
    return await picture.read()


@get("/api/v1/live", tags=["Overview"], media_type="text/event-stream")
async def live(listeners: Live) -> Stream:
    """The overview as server-sent events: `overview` whenever it changes, `away` while PostgreSQL does not answer."""
    frames = await listeners.follow()
    return Stream(frames, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
