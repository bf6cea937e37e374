"""What the answers to steering look like: what an act did, what is held, and what needs a person."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.api.views import HoldView, View


class CancelledRun(View, frozen=True, kw_only=True):
    """What cancelling did: how many runs (this one and those it submitted) ended at once, and how many were asked to.

    What executes ends when its code has stopped, at the latest with the grace that its task grants.
    """

    run_id: UUID
    state: str
    cancelled: int
    asked: int


class SteeredRun(View, frozen=True, kw_only=True):
    """The state of a run after it was steered."""

    run_id: UUID
    state: str


class SettledRun(View, frozen=True, kw_only=True):
    """A failed run about which nothing more has to be done."""

    run_id: UUID
    state: str
    settled: bool


class ReplayedRun(View, frozen=True, kw_only=True):
    """The run that repeats another. `created` is false when an earlier request made it."""

    run_id: UUID
    replay_of: UUID
    task: str
    created: bool
    status_url: str


class HoldList(View, frozen=True, kw_only=True):
    """All that is held, by name."""

    holds: list[HoldView]


class SteeredQueue(View, frozen=True, kw_only=True):
    """Whether anything of a domain or task starts now. `changed` is false when it was like this before."""

    name: str
    paused: bool
    changed: bool


class RunGroupView(View, frozen=True, kw_only=True):
    """Failed runs of one task that failed in one way, and that nobody has dealt with."""

    fingerprint: str
    domain: str
    task: str
    #: Type and message of the error; the message is that of the newest of them.
    type: str | None
    error: str | None
    count: int
    first_at: datetime
    last_at: datetime
    #: Ids of up to five of the runs, newest first.
    sample: list[UUID]


class MessageGroupView(View, frozen=True, kw_only=True):
    """Messages of one queue that could not be read for one reason."""

    fingerprint: str
    domain: str
    queue: str
    error: str
    count: int
    first_at: datetime
    last_at: datetime
    #: Ids of up to five of the messages, newest first.
    sample: list[UUID]


class DeadLetterGroups(View, frozen=True, kw_only=True):
    """What needs a person, grouped by what went wrong, the newest first; `more` says whether there are others."""

    runs: list[RunGroupView]
    messages: list[MessageGroupView]
    more: bool


class DeadRun(View, frozen=True, kw_only=True):
    """A failed run of a group. `args` is null where they are large: `GET /api/v1/runs/{id}` has them."""

    id: UUID
    task: str
    domain: str
    state: str
    attempt: int
    labels: dict[str, str]
    actor: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime
    args: dict[str, Any] | None
    #: type, message, traceback and fingerprint.
    error: dict[str, Any] | None


class DeadMessage(View, frozen=True, kw_only=True):
    """A message that could not be read: its body as text, or in base64 where it is no UTF-8.

    `size` is how many bytes came. In the list of a group a body is shown up to 4,096 bytes. Of what came longer than
    1 MiB only that much is kept: it is `cut`, and redelivered with a body of its own only.
    """

    id: UUID
    domain: str
    queue: str
    reason: str
    fingerprint: str
    received_at: datetime
    headers: dict[str, Any]
    size: int
    cut: bool
    text: str | None
    base64: str | None


class DeadLetterGroup(View, frozen=True, kw_only=True):
    """A page of the members of a group, newest first: runs or messages. `next_cursor` is null on the last page."""

    fingerprint: str
    runs: list[DeadRun]
    messages: list[DeadMessage]
    next_cursor: str | None


class Redelivered(View, frozen=True, kw_only=True):
    """A message that was handed to its queue again."""

    id: UUID
    queue: str


class RedeliveredGroup(View, frozen=True, kw_only=True):
    """How many messages of a group were handed to their queue again.

    Of those that came until `until`, `remaining` can still be redelivered as they are; `cut` cannot.
    """

    count: int
    remaining: int
    cut: int
    until: datetime


class SampleRun(View, frozen=True, kw_only=True):
    """One of the runs that were chosen."""

    id: UUID
    task: str
    state: str
    created_at: datetime
    finished_at: datetime | None
    error: str | None


class SelectionView(View, frozen=True, kw_only=True):
    """The preview of an act on many runs. `token` stands for exactly these, until `expires_at`."""

    token: UUID
    action: str
    count: int
    sample: list[SampleRun]
    expires_at: datetime


class ActView(View, frozen=True, kw_only=True):
    """How far an act on many runs is. While `remaining` is not 0, `POST /api/v1/selections/{selection}/act` goes on.

    `skipped` says of how many of those that are done nothing had to be done any more: they had changed since
    the preview.
    `canary` is the run of a replay that goes ahead of the others, which start when it has completed.
    """

    selection: UUID
    action: str
    count: int
    done: int
    skipped: int
    remaining: int
    canary: UUID | None


class Discarded(View, frozen=True, kw_only=True):
    """How many runs were settled, or messages thrown away; `remaining` says of how many that is still to be done."""

    count: int
    remaining: int
