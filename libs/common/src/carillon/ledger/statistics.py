"""What happened in a window of time: how much of it, how long it took, and how often it failed.

Whatever the past holds, no more than 64 MiB of it are read: of a longer past a share of its pages, spread evenly, and
`share` says how large that was. Counts are then estimates, scaled up; the longer the past, the less that matters.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from carillon.errors import InvalidArgumentsError
from carillon.ledger.pages import Ask, Row, bounded
from carillon.ledger.records import State

#: Of the ledger, that one question reads.
MOST_BYTES = 64 * 2**20
MOST_SECONDS = 5.0
#: No window is longer, and no more tasks are told apart; the rest is in the totals.
MOST_WINDOW = timedelta(days=31)
MOST_TASKS = 200
#: Up to this length a window is told minute by minute, beyond it hour by hour.
BY_MINUTE = timedelta(hours=3)

#: The days that a window touches, with their bytes.
_BYTES = """
select coalesce(sum(pg_relation_size(c.oid)), 0)::float8 as bytes
from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'carillon.runs'::regclass
  and (c.relname = 'runs_unfiled' or c.relname between $1 and $2 and c.relname ~ '^runs_d[0-9]{8}$')
"""
_ENDED = """
carillon.runs r {sample}
where r.finished_at >= $1 and r.finished_at < $2 and r.ended_on between $3 and $4
  and ($5::text is null or r.task = $5) and ($6::text is null or r.domain = $6)
"""
_COUNTS = """
select date_trunc($7, r.finished_at, 'UTC') as at, r.task, r.state, count(*) as count,
    count(*) filter (where r.attempt - r.uncounted > 1) as retried,
    coalesce(sum(extract(epoch from r.finished_at - r.started_at)), 0)::float8 as seconds
from {ended} group by 1, 2, 3
"""
_SPREADS = """
select r.task,
    percentile_cont(array[0.5, 0.95, 0.99]) within group (order by extract(epoch from r.finished_at - r.started_at))
        as duration,
    percentile_cont(array[0.5, 0.95, 0.99]) within group (
        order by greatest(extract(epoch from r.started_at - greatest(r.run_at, r.created_at)), 0)) as wait
from {ended} and r.started_at is not null group by 1
"""
#: What lives now; the partition of what lives is small beside the past, unless millions wait.
_LIVE = """
select r.state, count(*) as count from carillon.runs_live r
where ($1::text is null or r.task = $1) and ($2::text is null or r.domain = $2) group by 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A span of time, since <= end of the run < until, and perhaps one task or domain."""

    since: datetime
    until: datetime
    task: str | None = None
    domain: str | None = None

    def __post_init__(self) -> None:
        """Refuse a window that is empty, or longer than 31 days."""
        if not timedelta(0) < self.until - self.since <= MOST_WINDOW:
            message = f"a window ends after it begins, and is at most {MOST_WINDOW.days} days long"
            raise InvalidArgumentsError(message)


@dataclass(frozen=True, slots=True)
class Spread:
    """Half, 95 and 99 of a hundred were no longer than so many seconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """How many runs ended in which state, and what share of those that were executed failed (None: there were none)."""

    counts: Mapping[str, int]
    failure_rate: float | None
    per_minute: float
    per_hour: float
    #: Those that were attempted again because an attempt had failed; snoozes and lost workers are not counted.
    retried: int
    #: How long their last attempts took altogether.
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskNumbers:
    """Those of one task, with how long its last attempts took, and how long they waited from when they were due."""

    task: str
    total: Numbers
    duration: Spread | None
    wait: Spread | None


@dataclass(frozen=True, slots=True)
class Bucket:
    """One minute or hour (UTC), from its beginning on."""

    at: datetime
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What ended in a window, and what lives now."""

    window: Window
    #: 1 when every run was counted; 0.05 when one in twenty was, and the counts are estimates.
    share: float
    total: Numbers
    #: Those with the most runs first.
    tasks: Sequence[TaskNumbers]
    #: Minutes or hours in which something ended, first to last.
    buckets: Sequence[Bucket]
    #: Runs that have not ended, by state.
    live: Mapping[str, int]


@dataclass(slots=True)
class _Sum:
    """What was read of some runs, not scaled up yet."""

    counts: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    seconds: float = 0.0

    def add(self, row: Row) -> None:
        self.counts[row["state"]] += row["count"]
        self.retried += row["retried"]
        self.seconds += row["seconds"]


async def statistics(engine: AsyncEngine, window: Window) -> Statistics:
    """Count; raises `SearchTooWideError` when one of the questions takes longer than five seconds."""
    first, last = window.since.astimezone(UTC).date(), window.until.astimezone(UTC).date()
    width = "minute" if window.until - window.since <= BY_MINUTE else "hour"
    async with bounded(engine, MOST_SECONDS) as ask:
        share = await _share(ask, window, first, last)
        # The same pages for both questions, and the next time too: what is shown twice does not flicker.
        sample = "" if share == 1 else f"tablesample system ({share * 100:.6f}) repeatable (1)"
        ended, values = _ENDED.format(sample=sample), (window.since, window.until, first, last)
        asked = (*values, window.task, window.domain)
        counts = await ask(_COUNTS.format(ended=ended), (*asked, width))
        spreads = await ask(_SPREADS.format(ended=ended), asked)
        live = await ask(_LIVE, (window.task, window.domain))
    return _put_together(window, share, counts, spreads, {row["state"]: row["count"] for row in live})


async def _share(ask: Ask, window: Window, first: date, last: date) -> float:
    (row,) = await ask(_BYTES, (f"runs_d{first:%Y%m%d}", f"runs_d{last:%Y%m%d}"))
    # Of a few hours an index finds the runs; of whole days the pages are read.
    part = min(1.0, (window.until - window.since) / timedelta(days=(last - first).days + 1))
    if row["bytes"] * part <= MOST_BYTES:
        return 1.0
    return float(MOST_BYTES / row["bytes"])


def _put_together(
    window: Window, share: float, counts: Sequence[Row], spreads: Sequence[Row], live: Mapping[str, int]
) -> Statistics:
    total, by_task = _Sum(), defaultdict[str, _Sum](_Sum)
    by_moment: defaultdict[datetime, Counter[str]] = defaultdict(Counter)
    for row in counts:
        total.add(row)
        by_task[row["task"]].add(row)
        by_moment[row["at"]][row["state"]] += row["count"]
    spread_of = {row["task"]: row for row in spreads}
    busiest = sorted(by_task, key=lambda task: (-by_task[task].counts.total(), task))[:MOST_TASKS]
    return Statistics(
        window=window,
        share=share,
        total=_numbers(window, share, total),
        tasks=[
            TaskNumbers(
                task=task,
                total=_numbers(window, share, by_task[task]),
                duration=_spread(spread_of.get(task), "duration"),
                wait=_spread(spread_of.get(task), "wait"),
            )
            for task in busiest
        ],
        buckets=[Bucket(at, _scaled(found, share)) for at, found in sorted(by_moment.items())],
        live=live,
    )


def _numbers(window: Window, share: float, found: _Sum) -> Numbers:
    counts = found.counts
    executed = counts[State.COMPLETED] + counts[State.PARTIAL] + counts[State.FAILED]
    hours = (window.until - window.since) / timedelta(hours=1)
    per_hour = counts.total() / share / hours
    return Numbers(
        counts=_scaled(counts, share),
        failure_rate=counts[State.FAILED] / executed if executed else None,
        per_minute=per_hour / 60,
        per_hour=per_hour,
        retried=round(found.retried / share),
        seconds=found.seconds / share,
    )


def _scaled(found: Counter[str], share: float) -> dict[str, int]:
    return {state: round(count / share) for state, count in sorted(found.items())}


def _spread(row: Row | None, name: str) -> Spread | None:
    return None if row is None or row[name] is None else Spread(*(float(value) for value in row[name]))
