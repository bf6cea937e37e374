"""What can go wrong in reports.

```
carillon.errors.TransientError
└── RendererStoppedError      the renderer took too long or was killed: tried again by policy
carillon.errors.PermanentError
├── UnequalTotalsError        a written file does not add up to its data set: nothing is kept, a person looks
└── NoDatasetError            no rollups were heard yet: there is nothing to report
Exception
└── RendererFailedError       the renderer broke: a bug, retried by policy, then loud
```
"""

from __future__ import annotations

from carillon.errors import PermanentError, TransientError


class RendererStoppedError(TransientError):
    """The renderer did not finish; give it more time or memory."""


class UnequalTotalsError(PermanentError):
    """A written file and its data set do not have the same totals, so nothing was kept or sent."""


class NoDatasetError(PermanentError):
    """No rollups were heard yet, so there is nothing to report."""


class RendererFailedError(Exception):
    """The renderer broke on this data set; its last words are in the message."""
