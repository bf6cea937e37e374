"""What can be wrong with a schedule.

```
CarillonError
└── ScheduleError         a schedule cannot be read or would never fire; the sentence says what to write instead
```
"""

from __future__ import annotations

from carillon.errors import CarillonError


class ScheduleError(CarillonError):
    """This schedule cannot be followed as it is written; mend its row and it fires again within a second."""
