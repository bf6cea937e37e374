"""A group of measurements that belong together, and what each is given."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.ours import Carillon

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.otlp_sink import Collector
    from bench.report import Figure
    from bench.servers import Servers


@dataclass
class Bench:
    """The servers of this run, and who tells the reader."""

    servers: Servers
    traces: Collector
    #: The most rounds of a comparison.
    rounds: int
    #: The versions of the peers, which the groups that have any enter.
    versions: dict[str, str] = field(default_factory=dict)

    async def ours(self, transport: str, **env: str) -> Carillon:
        """Carillon on `rabbitmq` or `postgres`, prepared; `env` changes its environment."""
        ours = Carillon(self.servers, transport, self.traces, env)
        await ours.prepare()
        return ours

    def say(self, text: str) -> None:
        """One line of progress or result."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


@dataclass(frozen=True)
class Group:
    """Measurements that are run together, with the databases they need and the time they may take."""

    measure: Callable[[Bench], Awaitable[list[Figure]]]
    #: Names of private databases.
    databases: tuple[str, ...]
    #: The group is stopped after this, cleaned up; in seconds.
    limit_seconds: float
