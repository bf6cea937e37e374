"""What becomes of the members of a batch of reports, and what the batch comes to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from reports.dataset import Frozen
from reports.errors import BatchFailedError, InvalidRequestError
from reports.requests import requested

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from carillon.workflows.gathering import Gathered
    from reports.periods import ReportSpec


class Member(Frozen):
    """What became of one spec of a batch."""

    #: Its place among the specs, counted from 0.
    at: int
    status: Literal["successful", "failed", "skipped"]
    #: Why it failed or was skipped, or what is missing of one that went well.
    reason: str | None = None
    #: What `generate_and_deliver_report` returned.
    result: dict[str, Any] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it was skipped because there was nothing to report, as its spec wanted."""
        return self.status == "skipped" and self.result is not None

    @property
    def is_whole(self) -> bool:
        """Whether it went as it was wanted."""
        return self.is_empty or (self.status == "successful" and self.reason is None)


def sorted_out(specs: Sequence[Mapping[str, Any]]) -> tuple[dict[int, ReportSpec], list[Member]]:
    """The specs that can be made, by their places, and what becomes of the others: they are skipped."""
    valid: dict[int, ReportSpec] = {}
    skipped = []
    for at, spec in enumerate(specs):
        try:
            valid[at] = requested(**spec)
        except InvalidRequestError as error:
            skipped.append(Member(at=at, status="skipped", reason=str(error)))
    return valid, skipped


def members_of(places: Sequence[int], batch: Gathered[dict[str, Any]]) -> list[Member]:
    """What became of the specs that were begun; `places` are theirs among all."""
    failed = [Member(at=places[one.at], status="failed", reason=one.reason) for one in batch.failed]
    skipped = [Member(at=places[one.at], status="skipped", reason=one.reason) for one in batch.skipped]
    return [*failed, *skipped, *(_ended(places[at], batch.results[at] or {}) for at in batch.successful)]


def summed_up(members: Iterable[Member], need: float) -> tuple[dict[str, Any], str | None]:
    """The counts and each member, as JSON types, and why that is not the whole; None where it is.

    `need` is the least share that has to go well of those that are not empty. Raises `BatchFailedError` for fewer, and
    where there are some and none went well.
    """
    members = sorted(members, key=lambda member: member.at)
    states = [member.status for member in members]
    missed = [member for member in members if not member.is_whole]
    successful, due = states.count("successful"), sum(not member.is_empty for member in members)
    least = max(math.ceil(need * due - 1e-9), min(due, 1))
    if successful < least:
        message = f"{successful} of {due} reports went well, and {least} have to; {_told(missed[0])}"
        raise BatchFailedError(message)
    summary = {"total": len(members)} | {state: states.count(state) for state in ("successful", "failed", "skipped")}
    outcome = {"summary": summary, "reports": [member.model_dump(mode="json") for member in members]}
    return outcome, f"{len(missed)} of {len(members)} reports are not whole; {_told(missed[0])}" if missed else None


def _ended(at: int, result: dict[str, Any]) -> Member:
    status: Literal["successful", "skipped"] = "skipped" if result["status"] == "skipped" else "successful"
    return Member(at=at, status=status, reason=result["reason"], result=result)


def _told(member: Member) -> str:
    return f"the first that did not, at {member.at}: {member.reason}"
