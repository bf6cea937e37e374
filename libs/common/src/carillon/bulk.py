"""Acting on many runs: a preview first, then an act upon exactly what it showed, stored results included."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any, get_args
from uuid import UUID

import structlog

from carillon.errors import InvalidArgumentsError, NotFoundError, TransientError
from carillon.ledger.audit import Actor
from carillon.ledger.search import Search, condition
from carillon.ledger.selections import NO_SELECTION, Act, Progress, Selection
from carillon.platform import Platform

log = structlog.get_logger(__name__)

#: What runs can be chosen by; the rest of a search says which page of them.
FILTERS = tuple(one.name for one in fields(Search) if one.name not in ("after", "limit"))


async def select(
    platform: Platform, action: Act, search: Search, filters: Mapping[str, Any], actor: Actor
) -> Selection:
    """Choose the runs that a search finds and that the act can do something to; `filters` says the same for people.

    Raises `InvalidArgumentsError` for an act that there is not, without any filter, and where more than 1,000,000 fit.
    """
    if action not in get_args(Act):
        message = f"there is no act {action!r}; there are {', '.join(get_args(Act))}"
        raise InvalidArgumentsError(message)
    where, values = condition(search)
    if not values:
        message = "name at least one filter, such as task or since; nobody means every run there is"
        raise InvalidArgumentsError(message)
    return await platform.ledger.selections.make(action, where, values, filters, actor)


def searched(filters: Mapping[str, Any]) -> Search:
    """The search by these filters, which are those of `Search`; raises `InvalidArgumentsError`."""
    if unknown := sorted(set(filters) - set(FILTERS)):
        message = f"there is no filter {unknown[0]!r}; there are {', '.join(sorted(FILTERS))}"
        raise InvalidArgumentsError(message)
    return Search(**filters)


async def act(
    platform: Platform,
    selection: UUID | str,
    actor: Actor,
    reason: str | None,
    *,
    rate: float,
    canary: bool,
    within: timedelta | None,
) -> Progress:
    """Act upon the runs of a selection until nothing remains, or for as long as `within` says; see `Operator.act`."""
    token, deadline = _token(selection), None if within is None else time.monotonic() + within.total_seconds()
    while True:
        progress = await platform.ledger.selections.act(token, actor, reason, per_second=rate, canary=canary)
        if progress.stored:
            await _delete_stored(platform, progress)
        if not progress.remaining or (deadline is not None and time.monotonic() >= deadline):
            return progress


async def _delete_stored(platform: Platform, progress: Progress) -> None:
    try:
        await platform.stored_results.delete(progress.stored)
    except TransientError as error:
        # The runs are gone, so nobody asks for these again; they go with their day.
        log.warning("results of deleted runs stay in storage for now", results=len(progress.stored), why=str(error))


def _token(selection: UUID | str) -> UUID:
    try:
        return selection if isinstance(selection, UUID) else UUID(selection)
    except ValueError:
        raise NotFoundError(NO_SELECTION) from None
