"""How many runs of a task may execute at once, and how often one may start: for the task, and for each key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from carillon.errors import ConfigurationError

#: A limit beyond this is none.
MOST = 1_000_000
#: A period beyond this is a schedule.
LONGEST = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many starts in a period, evenly: `Rate(100, per=timedelta(minutes=1))`.

    In any stretch of time at most `burst` runs start, and besides `number` for each `per` of it. Without a `burst`
    that is what fits into a tenth of a second, at least one: 100 a minute are one every 0.6 s, however many wait. With
    `burst=100`, after a while without any, 100 start together.
    """

    number: int
    per: timedelta
    burst: int | None = None

    def __post_init__(self) -> None:
        """Refuse a rate that could not be kept."""
        check_number("number", self.number)
        if not isinstance(self.per, timedelta) or not timedelta(0) < self.per <= LONGEST:
            message = f"{self!r} cannot be kept: per is a timedelta, more than nothing and at most {LONGEST.days} days"
            raise ConfigurationError(message)
        if self.burst is not None:
            check_number("burst", self.burst)

    @property
    def most_at_once(self) -> int:
        """How many may start together."""
        if self.burst is not None:
            return self.burst
        return max(1, math.ceil(self.number * 0.1 / self.per.total_seconds()))

    @property
    def shown(self) -> dict[str, Any]:
        """The rate as the ledger keeps it and the catalogue shows it."""
        return {"number": self.number, "per_seconds": self.per.total_seconds(), "burst": self.most_at_once}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one task, kept across all workers: `Limits(concurrency=20, key="customer", per_key=2)`.

    What they do not let in waits in the ledger. Keys take turns, so that one with many waiting runs delays the others
    by one run at a time; within a key the priority decides.
    """

    #: So many runs of the task are at the workers at once, executing or next in line.
    concurrency: int | None = None
    #: The argument whose value is the key, such as `customer`; with dots for what is inside: `event.customer`. Runs
    #: without it share one key.
    key: str | None = None
    #: So many of one key.
    per_key: int | None = None
    #: How often a run of the task may start, and how often one of each key. Every attempt is a start.
    rate: Rate | None = None
    rate_per_key: Rate | None = None

    def __post_init__(self) -> None:
        """Refuse limits that could not be kept."""
        if self.concurrency is not None:
            check_number("concurrency", self.concurrency)
        if self.per_key is not None:
            check_number("per_key", self.per_key)
        for name, rate in (("rate", self.rate), ("rate_per_key", self.rate_per_key)):
            if not isinstance(rate, Rate | None):
                message = f"{name} is {rate!r}; write Rate(100, per=timedelta(minutes=1))"
                raise ConfigurationError(message)
        by_key = self.per_key is not None or self.rate_per_key is not None
        if by_key and self.key is None:
            message = 'per_key and rate_per_key need to know the key; name an argument, such as key="customer"'
            raise ConfigurationError(message)
        if not by_key and self.concurrency is None and self.rate is None:
            message = "these limits limit nothing; give concurrency, rate, per_key or rate_per_key, or leave them out"
            raise ConfigurationError(message)
        if self.key is not None and not (isinstance(self.key, str) and all(self.key.split("."))):
            message = f"the key {self.key!r} is no path; name an argument, with dots for what is inside it"
            raise ConfigurationError(message)

    def check(self, task: str, arguments: Sequence[str]) -> None:
        """Refuse a key that is none of the task's arguments; raises `ConfigurationError` naming both."""
        if self.key is not None and self.key.split(".")[0] not in arguments:
            known = ", ".join(arguments) or "none"
            message = f"the limits of {task} have the key {self.key!r}, which is no argument of it; it takes {known}"
            raise ConfigurationError(message)

    @property
    def shown(self) -> dict[str, Any]:
        """The limits as the ledger keeps them and the catalogue shows them; what is not limited is left out."""
        given = {
            "concurrency": self.concurrency,
            "key": self.key,
            "per_key": self.per_key,
            "rate": self.rate and self.rate.shown,
            "rate_per_key": self.rate_per_key and self.rate_per_key.shown,
        }
        return {name: value for name, value in given.items() if value is not None}


def in_words(limits: Mapping[str, Any]) -> str:
    """Limits as the catalogue shows them, for people: `at most 20 at once; at most 2 at once for each customer`."""
    each = f" for each {limits.get('key')}"
    told = [
        f"at most {limits[name]:,} at once{whose}"
        for name, whose in (("concurrency", ""), ("per_key", each))
        if name in limits
    ]
    for name, whose in (("rate", ""), ("rate_per_key", each)):
        if name in limits:
            rate = limits[name]
            together = f", {rate['burst']:,} of them together" if rate["burst"] > 1 else ""
            starts = "start" if rate["number"] == 1 else "starts"
            told.append(f"{rate['number']:,} {starts} in {rate['per_seconds']:g} s{whose}{together}")
    return "; ".join(told)


def check_number(name: str, number: object) -> None:
    """Refuse what is no limit; raises `ConfigurationError`."""
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MOST:
        message = f"{name} is {number!r}; it is a whole number from 1 to {MOST:,}"
        raise ConfigurationError(message)
