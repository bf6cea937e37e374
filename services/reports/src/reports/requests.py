"""From what somebody asked for to the report that is meant, or to a sentence saying what there is."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError

from reports.errors import InvalidRequestError
from reports.periods import Period, ReportSpec

Asked = TypeVar("Asked", bound=Period)

#: Faults that one refusal tells.
MOST_FAULTS = 3


def requested(**given: Any) -> ReportSpec:
    """The report that is asked for; raises `InvalidRequestError` saying what is wrong with each field."""
    return _read(ReportSpec, given)


def period_of(**given: Any) -> Period:
    """The period that is asked for; raises as `requested` does."""
    return _read(Period, given)


def _read(model: type[Asked], given: dict[str, Any]) -> Asked:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        faults = (
            f"{'.'.join(map(str, fault['loc'])) or 'period'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_url=False)[:MOST_FAULTS]
        )
        raise InvalidRequestError("; ".join(faults)) from None
