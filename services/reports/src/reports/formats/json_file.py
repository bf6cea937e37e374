"""JSON: the data set of a period for programs; counts are whole, and times are milliseconds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from reports import wording
from reports.dataset import Runs, add
from reports.periods import PeriodTotals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from reports.periods import PeriodData


def write_period(data: PeriodData, path: Path) -> None:
    """Write the data set, its title and its totals."""
    document = {"title": wording.period_title(data), **data.model_dump(mode="json"), "total": data.total.model_dump()}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def read_period_totals(path: Path) -> PeriodTotals:
    """Add up the lines as a stranger would read them."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return PeriodTotals(tasks=_total(document["tasks"]), days=_total(document["days"]))


def _total(lines: Iterable[Mapping[str, int]]) -> Runs:
    return add(Runs(**{name: line[name] for name in Runs.model_fields}) for line in lines)
