"""What stops the benchmark.

BenchError
+-- MissingServerError    a server or a tool does not answer
+-- StuckError            something did not end in its time
"""

from __future__ import annotations


class BenchError(Exception):
    """The benchmark cannot go on; the text says what to do."""


class MissingServerError(BenchError):
    """A server or a tool the benchmark needs does not answer."""


class StuckError(BenchError):
    """A measurement did not end within its deadline."""
