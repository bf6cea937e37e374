"""What can go wrong in reports.

```
carillon.errors.TransientError
└── RendererStoppedError      the renderer took too long or was killed: tried again by policy
carillon.errors.PermanentError
├── UnequalTotalsError        a written file does not add up to its data set: nothing is kept, a person looks
├── NoDatasetError            no rollups were heard yet, or none of this period: there is nothing to report
├── InvalidRequestError       a report was asked for that there is not, or not like this
├── DamagedDatasetError       a data set in storage is missing or not the one that was collected
├── NobodyReachedError        no recipient of a report took it
└── BatchFailedError          too few reports of a batch went well
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
    """No rollups were heard yet, or none of the days asked for, so there is nothing to report."""


class InvalidRequestError(PermanentError):
    """A report was asked for that cannot be made; the message says what there is."""


class DamagedDatasetError(PermanentError):
    """A data set in storage is missing or differs from what was collected; ask for the report again."""


class NobodyReachedError(PermanentError):
    """No recipient took the report; mend the addresses or the mail server, then replay."""


class BatchFailedError(PermanentError):
    """Too few reports of a batch went well; the message says how many had to, and why the first did not."""


class RendererFailedError(Exception):
    """The renderer broke on this data set; its last words are in the message."""
