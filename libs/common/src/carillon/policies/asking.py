"""Asking the ledger in the middle of a task's code: with a deadline, and without an answer if need be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import asyncpg
import structlog

from carillon.ledger.group_commit import SERVER_AWAY

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

#: A policy waits no longer for the ledger.
ASK_SECONDS = 2.0
#: What `asked` raises when there is no answer.
NO_ANSWER = (*SERVER_AWAY, asyncpg.PostgresError)
#: Characters of an error that a refusal or a summary tells.
MOST_WORDS = 300


async def asked(answer: Awaitable[Answer], otherwise: str, **facts: object) -> Answer:
    """The ledger's answer; where there is none within two seconds, logs `otherwise` with the facts, and raises why."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            return await answer
    except NO_ANSWER as error:
        log.warning(otherwise, error=repr(error), **facts)
        raise


def in_words(error: BaseException) -> str:
    """An error in one line; its class may be anybody's, and so may be what it says."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - whatever it does, it is told of
        text = "(its text cannot be had)"
    line = " ".join(text.replace("\0", "\ufffd").split())
    told = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return told.encode("utf-8", "backslashreplace").decode()[:MOST_WORDS]
