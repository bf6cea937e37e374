"""Pages of the history, in bounded time: how a search is carried out.

A search by what an index has in the order of the page is one short read. Any other is tried on the newest runs first,
where what is frequent is found at once; what is rare is then looked for in ever longer spans of time, in which an
index on the value itself finds it. PostgreSQL alone would have to know beforehand which of the two it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from carillon.errors import SearchTooWideError
from carillon.ledger.search import Condition, Search, condition

Row = Mapping[str, Any]

#: What a list shows of a run; arguments, result and error are in its details.
SUMMARY = (
    "id", "domain", "task", "state", "labels", "priority", "attempt", "run_at", "created_at", "started_at",
    "finished_at", "event_id", "parent_id", "replay_of", "actor",
)  # fmt: skip
#: What a run that executes reported of how far it is; without the partial result, which may be large.
#: What an earlier attempt reported says nothing about this one.
PROGRESS = (
    "case when {0}.state = 'running' and coalesce(({0}.progress->>'attempt')::int, {0}.attempt) = {0}.attempt "
    "then {0}.progress - '{{partial,beat_at}}'::text[] end"
)
#: No page is larger.
MOST_ROWS = 500
#: A search that takes longer is given up.
MOST_SECONDS = 2.0
#: How many of the newest runs are looked through before an index is asked for a value.
GLANCE = 2_000
#: How far back each of the looks after that goes; the last one has no end.
SPANS = (timedelta(hours=2), timedelta(hours=16), timedelta(days=4))

Ask = Callable[[str, Sequence[object]], Awaitable[list[Row]]]

_SHOWN = (*(f"r.{name}" for name in SUMMARY), "r.error->>'message' as error", f"{PROGRESS.format('r')} as progress")
_COLUMNS = ", ".join(_SHOWN)
_ORDER = "order by r.created_at desc, r.id desc"
#: Plans are made for the values at hand: which days there are to read depends on them.
_BOUNDS = "select set_config('statement_timeout', $1, true), set_config('plan_cache_mode', 'force_custom_plan', true)"
_CANCELED = "57014"


def with_current_progress(run: Row) -> dict[str, Any]:
    """A run without what an earlier attempt reported; the partial result that one kept stays.

    The last beat of this attempt is told apart, as `beat_at`.
    """
    kept = dict(run["progress"] or {})
    is_current = kept.get("attempt", run["attempt"]) == run["attempt"]
    beat = kept.pop("beat_at", None)
    if not is_current:
        kept = {**kept, **dict.fromkeys(("fraction", "stage", "message", "eta_seconds"))} if "partial" in kept else {}
    return {
        **run,
        "progress": kept if kept.keys() - {"attempt"} else None,
        "beat_at": datetime.fromisoformat(beat) if beat is not None and is_current else None,
    }


async def page(engine: AsyncEngine, search: Search) -> list[Row]:
    """The runs of one page, newest first. Raises `SearchTooWideError` when one look takes longer than two seconds."""
    wanted = min(search.limit, MOST_ROWS)
    if search.finished_until is not None:
        # What ended before was accepted before.
        until = search.until or search.finished_until
        search = replace(search, until=min(until, search.finished_until))
    async with bounded(engine, MOST_SECONDS) as ask:
        if _is_in_order(search):
            return await _in_order(ask, search, wanted)
        found = await _glance(ask, search, wanted)
        if len(found) == wanted:
            return found
        found = []
        for span in _spans(search):
            found += await _all_of(ask, span, wanted - len(found))
            if len(found) == wanted:
                break
        return found


@asynccontextmanager
async def bounded(engine: AsyncEngine, seconds: float) -> AsyncIterator[Ask]:
    """Asks in SQL with `$1` and on, each question for so many seconds at most; else raises `SearchTooWideError`."""
    async with engine.connect() as connection:
        await connection.exec_driver_sql(_BOUNDS, (f"{seconds * 1e3:.0f}",))

        async def ask(sql: str, values: Sequence[object]) -> list[Row]:
            rows = await connection.exec_driver_sql(sql, tuple(values))
            return [dict(row) for row in rows.mappings()]

        try:
            yield ask
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _CANCELED:
                raise
            message = (
                f"this would take longer than {seconds:g} s; narrow it to a shorter time (since and until), to a task, "
                "a label or an argument"
            )
            raise SearchTooWideError(message) from error


def _is_in_order(search: Search) -> bool:
    """Whether an index of each day has what is searched for in the order of the page: all, one task, or one state."""
    others = replace(search, task=None, states=(), since=None, until=None, after=None, limit=0)
    return len(search.states) + (search.task is not None) <= 1 and others == Search(limit=0)


async def _in_order(ask: Ask, search: Search, wanted: int) -> list[Row]:
    held = _where(search)
    sql = f"select {_COLUMNS} from carillon.runs r where {held.sql} {_ORDER} limit {wanted}"
    return await ask(sql, held.values)


async def _glance(ask: Ask, search: Search, wanted: int) -> list[Row]:
    """What is found among the newest runs of the time that is searched."""
    newest = _where(Search(since=search.since, until=search.until, after=search.after))
    held = condition(search, first=len(newest.values) + 1)
    runs = f"select * from carillon.runs r where {newest.sql} {_ORDER} limit {GLANCE}"
    sql = f"select {_COLUMNS} from ({runs}) r where {held.sql} {_ORDER} limit {wanted}"
    return await ask(sql, (*newest.values, *held.values))


async def _all_of(ask: Ask, search: Search, wanted: int) -> list[Row]:
    """The newest of all that fit: first they are found, by whatever index finds them, and then put in order."""
    held = _where(search)
    found = f"select {_COLUMNS} from carillon.runs r where {held.sql}"
    sql = f"with r as materialized ({found}) select * from r {_ORDER} limit {wanted}"
    return await ask(sql, held.values)


def _spans(search: Search) -> Iterator[Search]:
    """The search for one span of time after the other, newest first."""
    bounds = (search.until, search.after and search.after.created_at, datetime.now(UTC))
    newest = min(moment for moment in bounds if moment is not None)
    for span in SPANS:
        begin = newest - span
        if search.since is not None and begin <= search.since:
            break
        yield replace(search, since=begin)
        # From here on the span's own end says more than the row after which the page begins.
        search = replace(search, until=begin, after=None)
    yield search


def _where(search: Search) -> Condition:
    """The search, and after which row its page begins."""
    held = condition(search)
    if search.after is None:
        return held
    place = f"(r.created_at, r.id) < (${len(held.values) + 1}::timestamptz, ${len(held.values) + 2}::uuid)"
    return Condition(f"{held.sql} and {place}", (*held.values, *search.after))
