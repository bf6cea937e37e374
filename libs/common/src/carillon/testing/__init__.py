"""What the tests of a domain need: a rehearsal in memory, servers to run it against, and patience with a deadline."""

from carillon.testing.eventually import eventually
from carillon.testing.in_process import InProcess
from carillon.testing.rehearsal import Rehearsal
from carillon.testing.rehearsed import RehearsedAttempt, RehearsedRun
from carillon.testing.running import running

__all__ = ["InProcess", "Rehearsal", "RehearsedAttempt", "RehearsedRun", "eventually", "running"]
