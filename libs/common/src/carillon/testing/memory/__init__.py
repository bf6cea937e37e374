"""The platform in memory: a twin of ledger and transport that passes the suites of the real ones.

What it does, it does as PostgreSQL does it, proved by the same tests. What it does not do (SQL, transactions of one's
own, searches and counts, acts on many, groups of dead letters, schedules, days) raises `NotInMemoryError`.
Decision 0015 says why.
"""

from carillon.testing.memory.ledger import MemoryLedger
from carillon.testing.memory.platform import MemoryPlatform
from carillon.testing.memory.store import NotInMemoryError, Store

__all__ = ["MemoryLedger", "MemoryPlatform", "NotInMemoryError", "Store"]
