"""What the tests of a domain need: its tasks in process, servers to run it against, and patience with a deadline."""

from carillon.testing.eventually import eventually
from carillon.testing.in_process import InProcess
from carillon.testing.running import running

__all__ = ["InProcess", "eventually", "running"]
