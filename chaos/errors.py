"""What stops a run of the fault matrix.

ChaosError
+-- NotReadyError      a process or server did not come up
+-- MissingNameError   what a mutation wants to replace is not there any more
"""

from __future__ import annotations


class ChaosError(Exception):
    """The run cannot go on; the text says what to do."""


class NotReadyError(ChaosError):
    """A process or a server did not come up within its deadline."""


class MissingNameError(ChaosError):
    """A name that `chaos/mutations.py` replaces is gone from Carillon; give it the new one there."""
