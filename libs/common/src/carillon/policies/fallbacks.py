"""Asking the sources of a fallback in their order, and keeping what was good last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import structlog

from carillon import clock
from carillon.bounds import check_key
from carillon.errors import Cancel, InvalidArgumentsError, NothingAnsweredError, PermanentError, Snooze, TransientError
from carillon.policies.asking import NO_ANSWER, asked, in_words
from carillon.policies.fallback import Answer, Fallback
from carillon.policies.values import kept_json, read

if TYPE_CHECKING:
    from carillon.ledger.last_good import LastGood
    from carillon.platform import Platform
    from carillon.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

Value = TypeVar("Value")
Source = Callable[[], Awaitable[Value]]

#: A value is written no more often from one process; so it may be this much older than it could be.
KEEP_SECONDS = 1.0
#: Keys of which is remembered when they were written.
MOST_REMEMBERED = 10_000
#: The name of the source after the last one.
LAST_GOOD = "last good"
#: These are answers.
ANSWERS = (PermanentError, Cancel, Snooze)


class Fallbacks:
    """The fallbacks that the tasks of one process use."""

    def __init__(self, platform: Platform, metrics: Metrics) -> None:
        self.last_good: LastGood = platform.ledger.last_good
        self._metrics = metrics
        #: On the monotonic clock.
        self._written_at: dict[tuple[str, str], float] = {}

    def count(self, fallback: Fallback[Any], source: str) -> None:
        """Count who answered."""
        self._metrics.fallback_answers.labels(fallback.name, source).inc()

    async def keep(self, fallback: Fallback[Any], key: str, value: object) -> None:
        """Keep a fresh value; where that cannot be, the answer is given all the same."""
        place, now = (fallback.name, key), clock.monotonic()
        if now - self._written_at.get(place, float("-inf")) < KEEP_SECONDS:
            return
        if len(self._written_at) >= MOST_REMEMBERED:
            self._written_at.clear()
        self._written_at[place] = now
        try:
            kept = kept_json(f"the fallback {fallback.name}", value)
        except PermanentError as error:
            log.warning("answer not kept as the last good one", fallback=fallback.name, error=str(error))
            return
        with suppress(*NO_ANSWER):
            await asked(self.last_good.keep(place, kept, fallback.keep), "answer not kept", fallback=fallback.name)


class Sources(Generic[Value]):
    """One fallback for one key, to be asked."""

    def __init__(self, fallbacks: Fallbacks, fallback: Fallback[Value], key: str) -> None:
        check_key("key", key)
        self._fallbacks = fallbacks
        self._fallback = fallback
        self._key = key

    async def __call__(self, **sources: Source[Value]) -> Answer[Value]:
        """The answer of the first source that has one, or what was good last.

        Raises `NothingAnsweredError` where there is neither, and a source's `PermanentError`, `Cancel` or `Snooze`.
        """
        if not sources:
            message = f"the fallback {self._fallback.name} was given no source; name at least one, the best first"
            raise InvalidArgumentsError(message)
        failures: dict[str, Exception] = {}
        for name, source in sources.items():
            try:
                async with asyncio.timeout(self._fallback.timeout.total_seconds()):
                    value = await source()
            except ANSWERS:
                self._fallbacks.count(self._fallback, name)
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, there may be another source
                failures[name] = error
                continue
            return await self._answered(name, value, failures)
        return await self._last_good(failures)

    async def _answered(self, source: str, value: Value, failures: Mapping[str, Exception]) -> Answer[Value]:
        self._fallbacks.count(self._fallback, source)
        if not failures:
            await self._fallbacks.keep(self._fallback, self._key, value)
            return Answer(value, source, degraded=False, reason=None, age_seconds=0.0)
        reason = _told(failures)
        log.warning("degraded answer", fallback=self._fallback.name, source=source, reason=reason)
        return Answer(value, source, degraded=True, reason=reason, age_seconds=0.0)

    async def _last_good(self, failures: Mapping[str, Exception]) -> Answer[Value]:
        name, reason, found = self._fallback.name, _told(failures), None
        with suppress(*NO_ANSWER):
            found = await asked(self._fallbacks.last_good.read((name, self._key)), "last good not read", fallback=name)
        if found is None:
            self._fallbacks.count(self._fallback, "none")
            named = [e.retry_after for e in failures.values() if isinstance(e, TransientError) and e.retry_after]
            message = f"no source of {name} answers, and nothing was kept for this key: {reason}"
            raise NothingAnsweredError(message, retry_after=min(named, default=None))
        self._fallbacks.count(self._fallback, LAST_GOOD)
        age = found.age.total_seconds()
        log.warning("degraded answer", fallback=name, source=LAST_GOOD, age_seconds=age, reason=reason)
        value = read(f"the fallback {name}", self._fallback.returns, found.value)
        return Answer(value, LAST_GOOD, degraded=True, reason=reason, age_seconds=age)


def _told(failures: Mapping[str, Exception]) -> str:
    return "; ".join(f"{name}: {in_words(error)}" for name, error in failures.items())
