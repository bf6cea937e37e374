"""How long after healing the old rate was back, from the times at which runs ended."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The rate is taken over this many seconds.
WINDOW_SECONDS = 2.0
#: What counts as back.
SHARE = 0.8
STEP_SECONDS = 0.1


def rate(ends: Sequence[float], begin: float, end: float) -> float:
    """Runs per second that ended between two moments. `ends` are sorted."""
    return (bisect_right(ends, end) - bisect_left(ends, begin)) / max(end - begin, 1e-9)


def recovery_seconds(ends: Sequence[float], usual: float, healed_at: float, until: float) -> float:
    """Seconds from healing until a whole window had the usual rate again; infinite when none had until `until`.

    A window may begin before the healing: where nothing slowed down, the answer is zero.
    """
    moment = healed_at
    while moment <= until:
        if rate(ends, moment - WINDOW_SECONDS, moment) >= SHARE * usual:
            return moment - healed_at
        moment += STEP_SECONDS
    return math.inf
