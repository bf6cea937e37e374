"""The platform in memory, and what carries runs on it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from functools import cached_property
from typing import Self

from obstore.store import ObjectStore

from carillon.ledger.wakeups import Wakeups
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.testing.memory.ledger import MemoryLedger
from carillon.testing.memory.reading import (
    MemoryAudit,
    MemoryCatalogue,
    MemoryHistory,
    MemorySchedules,
    no_engine,
)
from carillon.testing.memory.store import Store
from carillon.transports.postgres import PostgresTransport

#: No wake-up is ever lost here, so nobody has to look in case one was.
NEVER_SECONDS = 10 * 365 * 86_400.0


class MemoryWakeups(Wakeups):
    """Sets the event of a domain when runs of it became due."""

    def __init__(self, store: Store) -> None:
        super().__init__("")
        self._woken = defaultdict(asyncio.Event)
        store.listen(self._set)

    def subscribe(self, domain: str) -> asyncio.Event:
        """The event that is set when runs of the domain became due; its reader clears it."""
        return self._woken[domain]

    def _set(self, name: str) -> None:
        if name in self._woken:
            self._woken[name].set()


class MemoryTransport(PostgresTransport):
    """The ledger as the transport, as with PostgreSQL: workers claim what is due, woken by whoever submits."""

    name = "memory"


class MemoryPlatform(Platform):
    """A platform without servers. `beside` makes another over the same rows, as another process would be."""

    ledger: MemoryLedger
    history: MemoryHistory

    def __init__(self, settings: PlatformSettings, *, name: str, store: Store | None = None) -> None:
        self.store = Store() if store is None else store
        super().__init__(settings, name=name)

    def beside(self, settings: PlatformSettings, *, name: str) -> Self:
        """Another platform over the same rows."""
        return type(self)(settings, name=name, store=self.store)

    @cached_property
    def storage(self) -> ObjectStore:
        """Where files are kept: beside the rows."""
        return self.store.files

    def _assemble(self) -> None:
        self.ledger = MemoryLedger(self.store, name=self.name, call_back=self._call_back)
        self.wakeups = MemoryWakeups(self.store)
        self.transport = MemoryTransport(self.ledger, self.wakeups, poll=NEVER_SECONDS)
        self.engine = no_engine()
        self.history = MemoryHistory(self.store)
        self.audit = MemoryAudit(self.store)
        self.schedules = MemorySchedules()
        self.catalogue = MemoryCatalogue(self.store)
