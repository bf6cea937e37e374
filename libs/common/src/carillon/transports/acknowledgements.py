"""Acknowledging deliveries of RabbitMQ in groups, because every acknowledgement of its own is a system call."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiormq.abc import AbstractChannel


class Acknowledgements:
    """What was taken from a consumer's channels and is not acknowledged yet.

    Ends are committed in groups, so they are acknowledged in groups: one frame for all deliveries up to the first that
    still executes, and one for each that ended before its turn.
    """

    def __init__(self) -> None:
        # By channel, because a channel that comes back after a loss counts its deliveries anew.
        self._taken: dict[AbstractChannel, dict[int, bool]] = {}
        self._flush: asyncio.Task[None] | None = None
        self._due = False

    def take(self, channel: AbstractChannel, tag: int) -> None:
        """Remember a delivery, in the order of arrival."""
        tags = self._taken.get(channel)
        if tags is None:
            tags = self._taken[channel] = {}
        tags[tag] = False

    def done(self, channel: AbstractChannel, tag: int) -> None:
        """Acknowledge a delivery, together with the others that end in this turn of the event loop."""
        tags = self._taken.get(channel, {})
        if tag in tags:
            tags[tag] = True
        self._due = True
        if self._flush is None or self._flush.done():
            self._flush = asyncio.create_task(self._send_due(), name="acknowledgements")

    async def _send_due(self) -> None:
        # Again when more ended while it was sending: an acknowledgement that is forgotten keeps its slot for ever.
        while self._due:
            self._due = False
            for channel, tags in list(self._taken.items()):
                # After a loss the old tags are invalid; the messages come again, and the fence drops them.
                with suppress(Exception):
                    await _acknowledge(channel, tags)
                if channel.is_closed or not tags:
                    self._taken.pop(channel, None)


async def _acknowledge(channel: AbstractChannel, tags: dict[int, bool]) -> None:
    upto = None
    for tag, is_done in list(tags.items()):
        if not is_done:
            break
        upto = tag
        del tags[tag]
    if upto is not None:
        await channel.basic_ack(upto, multiple=True, wait=False)
    for tag in [tag for tag, is_done in tags.items() if is_done]:
        del tags[tag]
        await channel.basic_ack(tag, wait=False)
