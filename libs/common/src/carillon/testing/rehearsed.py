"""What a test sees of the runs of a rehearsal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from carillon.ledger.records import State


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsedAttempt:
    """One ended attempt."""

    attempt: int
    #: completed, failed, cancelled, or of one that did not end its run: retried, snoozed, handed_back.
    outcome: str
    #: Type, message, traceback and fingerprint, as the ledger keeps them.
    error: Mapping[str, Any] | None
    #: The last lines that it logged, without secrets.
    log: str | None
    started_at: datetime
    finished_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsedRun:
    """A run as it stands. Arguments, result and error are what JSON makes of them, as in production."""

    id: UUID
    task: str
    state: State
    args: Mapping[str, Any]
    labels: Mapping[str, str]
    priority: int
    result: Any
    #: Of the last attempt that failed, or why it was cancelled: `type`, `message`, and more.
    error: Mapping[str, Any] | None
    #: What it reported last: fraction, stage, message, partial.
    progress: Mapping[str, Any] | None
    #: Not before this moment, of a run that waits.
    run_at: datetime
    #: The limit for which it waits, in words such as `a limit of post.pack: 2 of 2 runs`; None when it waits for none.
    awaited_limit: str | None
    expires_at: datetime | None
    deadline_at: datetime | None
    parent_id: UUID | None
    #: The run that it repeats.
    replay_of: UUID | None
    #: The attempts that have ended, first to last.
    attempts: Sequence[RehearsedAttempt]


def seen(row: Mapping[str, Any], attempts: Sequence[Mapping[str, Any]], awaited_limit: str | None) -> RehearsedRun:
    """A run as the ledger's rows tell it."""
    told_apart = {"attempts", "awaited_limit", "state"}
    fields = {name: row[name] for name in RehearsedRun.__dataclass_fields__ if name not in told_apart}
    told = [
        RehearsedAttempt(**{name: each[name] for name in RehearsedAttempt.__dataclass_fields__}) for each in attempts
    ]
    return RehearsedRun(**fields, state=State(row["state"]), awaited_limit=awaited_limit, attempts=told)
