"""What PostgreSQL keeps for the real ledger: rows, and who is woken when they change."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, date, datetime
from itertools import count
from typing import Any, NoReturn
from uuid import UUID

import asyncpg
import orjson
from obstore.store import MemoryStore

from carillon import clock
from carillon.errors import CarillonError
from carillon.jsonb import holds_nul
from carillon.ledger.audit import Entry
from carillon.ledger.history import last_attempt
from carillon.ledger.records import NewEvent, NewRun, Priority, State
from carillon.ledger.statements.rows import gate_of
from carillon.policies.circuit import Circuit
from carillon.testing.memory.gates import gate_for

#: A row by the names of its table's columns, as `carillon.ledger.tables` has them.
Row = dict[str, Any]

#: In these states a run waits, and nobody executes it.
WAITING = frozenset({"pending", "queued", "retrying", "paused"})
#: Of a pair that stands for one character; UTF-8 has no such.
HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")

#: In these it may start.
READY = frozenset({"queued", "retrying"})


class NotInMemoryError(CarillonError):
    """The in-memory twin does not do this; the sentence says what does."""


def refuse(what: str) -> NoReturn:
    """Say that the twin does not do this."""
    message = f"the in-memory twin has no {what}; test that on PostgreSQL, with the fixtures of carillon.testing.plugin"
    raise NotInMemoryError(message)


class Store:
    """One installation's rows. Several platforms in one event loop may share it, as processes share a server."""

    def __init__(self) -> None:
        #: Runs that have not ended, in the order in which they were accepted, and those that have, as they ended.
        self.live: dict[UUID, Row] = {}
        self.ended: dict[UUID, Row] = {}
        #: The id of every run, in the order in which they were accepted.
        self.accepted: list[UUID] = []
        #: Attempts that did not end their run, by run.
        self.attempts: dict[UUID, list[Row]] = {}
        #: By an id that derives from its cause: task, arguments and what else is covered.
        self.causes: dict[UUID, tuple[str, bytes, str | None]] = {}
        #: By the run that waits: how each run ended that it needs, None until then.
        self.needs: dict[UUID, dict[UUID, str | None]] = {}
        #: By the workflow, and in it by the number.
        self.steps: dict[UUID, dict[int, Row]] = {}
        self.events: dict[UUID, Row] = {}
        #: By the name of a domain or task.
        self.holds: dict[str, Row] = {}
        self.workers: dict[UUID, Row] = {}
        self.tasks: dict[str, Row] = {}
        self.types: dict[str, Row] = {}
        #: How many runs of a domain may be at its workers, whatever their task; None for no limit.
        self.domains: dict[str, int | None] = {}
        #: By task: the key that was served last, and when the bucket of its starts is full again.
        self.turns: dict[str, Row] = {}
        #: The same bucket for each key, by task and key; one that is not here is full.
        self.buckets: dict[tuple[str, str], datetime] = {}
        #: Tasks take turns in the order in which they were served, also while the clock stands still.
        self._served = count(1)
        #: Circuit breakers, by name.
        self.breakers: dict[str, Circuit] = {}
        #: Effects, by name and key.
        self.effects: dict[tuple[str, str], Row] = {}
        #: Last good values, by name and key.
        self.last_good: dict[tuple[str, str], Row] = {}
        #: Places at bulkheads, by who has one.
        self.places: dict[UUID, Row] = {}
        self.audit: list[tuple[datetime, Entry]] = []
        self.files = MemoryStore()
        self._listeners: list[Callable[[str], None]] = []

    def listen(self, wake: Callable[[str], None]) -> None:
        """Be told of each domain of which runs became due, and of each worker that is to obey."""
        self._listeners.append(wake)

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """What a submit writes within is undone when it raises."""
        # Of rows only the values of columns change, and of what has ended none.
        live = {run: dict(row) for run, row in self.live.items()}
        needs = {run: dict(ends) for run, ends in self.needs.items()}
        before = live, dict(self.ended), list(self.accepted), dict(self.causes), needs
        try:
            yield
        except BaseException:
            self.live, self.ended, self.accepted, self.causes, self.needs = before
            raise

    def wake(self, name: str) -> None:
        """Tell whoever listens."""
        for listener in self._listeners:
            listener(name)

    def run(self, run: UUID) -> Row | None:
        """A run, whether it lives or has ended."""
        return self.live.get(run) or self.ended.get(run)

    def runs(self) -> Iterator[Row]:
        """Every run."""
        yield from self.live.values()
        yield from self.ended.values()

    def attempts_of(self, run: Row) -> list[Row]:
        """The ended attempts of a run, first to last."""
        return [*map(copied, self.attempts.get(run["id"], [])), *map(dict, last_attempt(copied(run)))]

    def wake_for(self, row: Row) -> None:
        """Wake whoever starts a run, or lets it in."""
        self.wake(gate_of(row["domain"]) if row["gated"] else row["domain"])

    def free_slot(self, row: Row) -> None:
        """Wake whoever lets in another run, where this one had a slot that it gives away."""
        if row["gate"] is not None and not row["gated"]:
            self.wake(gate_of(row["domain"]))

    def turn(self, task: str) -> Row:
        """Whose turn it is at the limits of a task."""
        return self.turns.get(task) or {"last_gate": None, "served": 0, "full_at": None}

    def next_turn(self) -> int:
        """The number of a turn that is taken now."""
        return next(self._served)

    def add(self, run: NewRun, *, given: bool) -> Row:
        """Enter a new run, and wake whoever may start it, or let it in."""
        row = _run_row(run)
        gate = gate_for(self.tasks.get(run.task, {}).get("limits"), row["args"])
        dispatched_at = clock.now() if given and gate is None else None
        row |= {"gate": gate, "gated": gate is not None, "dispatched_at": dispatched_at}
        self.live[run.id] = row
        self.accepted.append(run.id)
        self.wake_for(row)
        return row

    def bury(self, row: Row, state: str, **changed: Any) -> None:
        """Move a run to those that have ended."""
        now = clock.now()
        row |= {"state": state, "finished_at": now, "ended_on": now.date(), "gated": False} | changed
        self.ended[row["id"]] = self.live.pop(row["id"])

    def again(self, row: Row, state: str, outcome: str, **changed: Any) -> None:
        """Keep the attempt of a run that did not end it, and let the run wait for the next."""
        now = clock.now()
        kept = {"run_id": row["id"], "finished_at": now, "outcome": outcome, "ended_on": now.date()}
        kept |= {name: row[name] for name in ("attempt", "worker_id", "started_at")}
        kept |= {"error": changed.pop("attempt_error", None), "log": changed.pop("attempt_log", None)}
        self.attempts.setdefault(row["id"], []).append(kept)
        row |= {"state": state, "attempt": row["attempt"] + 1, "dispatched_at": None, "worker_id": None} | changed
        # Each attempt of a run with limits is let in by them.
        row["gated"] = row["gate"] is not None
        self.wake_for(row)

    def record(self, entry: Entry) -> None:
        """Enter what somebody did."""
        self.audit.append((clock.now(), entry))

    def is_held(self, row: Row) -> bool:
        """Whether its domain or its task is paused."""
        return row["domain"] in self.holds or row["task"] in self.holds

    def may_start(self, row: Row) -> bool:
        """Whether a run that waits is neither late nor held, and has not to be let in before."""
        expires_at: datetime | None = row["expires_at"]
        in_time = expires_at is None or expires_at > clock.now()
        return row["state"] in READY and not row["gated"] and in_time and not self.is_held(row)


def as_kept(text: str) -> Any:
    """JSON text as PostgreSQL would give it back; raises the error that it would refuse it with."""
    encoded = text.encode()
    if holds_nul(encoded):
        message = "unsupported Unicode escape sequence"
        raise asyncpg.UntranslatableCharacterError(message)
    try:
        return orjson.loads(encoded)
    except orjson.JSONDecodeError as error:
        message = "invalid input syntax for type json"
        raise asyncpg.InvalidTextRepresentationError(message) from error


def check_kept(run: NewRun) -> None:
    """Raise the error with which PostgreSQL would refuse a run."""
    as_kept(run.args)
    texts = (run.domain, run.task, run.actor, run.idempotency_key or "", *run.labels, *run.labels.values())
    if any("\0" in text or HALF_CHARACTER.search(text) for text in texts):
        message = "invalid byte sequence for encoding UTF8"
        raise asyncpg.CharacterNotInRepertoireError(message)
    if run.priority not in set(Priority):
        message = f"{run.priority} is none of the priorities, 0 to 3"
        raise asyncpg.DataError(message)


def work_of(run: NewRun) -> tuple[str, bytes, str | None]:
    """What makes two runs of one id the same: their task, arguments however they are spelled, and what is covered."""
    return run.task, orjson.dumps(orjson.loads(run.args), option=orjson.OPT_SORT_KEYS), run.covered


def same_work(known: tuple[str | bytes | None, ...], run: NewRun) -> bool:
    """Whether a run does what is known of an earlier one; of one that lives and has no cause the rest is not known."""
    return known == work_of(run)[: len(known)]


def same_json(one: object, other: object) -> bool:
    """Whether PostgreSQL takes two values for the same: 1 is 1.0, and is not true."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_json(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def copied(row: Row) -> Row:
    """The row for somebody who may do with it what they like."""
    return deepcopy(row)


def event_row(event: NewEvent) -> Row:
    """The row of a new event. Nothing has to be published: the ledger itself carries events."""
    columns = ("id", "event_id", "source", "type", "subject", "time", "run_id", "actor", "traceparent")
    now = clock.now()
    row = {name: getattr(event, name) for name in columns}
    return row | {"data": as_kept(event.data), "recorded_at": now, "published_at": now}


def _run_row(run: NewRun) -> Row:
    now = clock.now()
    same: Mapping[str, Any] = {
        name: getattr(run, name)
        for name in (
            "id", "domain", "task", "priority", "deadline_at", "idempotency_key", "parent_id", "step", "event_id",
            "replay_of", "callback_url", "actor", "traceparent",
        )
    }  # fmt: skip
    moments = [moment for moment in (run.expires_at, run.deadline_at) if moment is not None]
    absent = ("started_at", "finished_at", "worker_id", "settled_at", "cancel", "progress", "result", "error")
    return {
        **same,
        **dict.fromkeys((*absent, "log", "told", "wake_at", "origin")),
        "ended_on": date.max,
        "state": State.QUEUED.value if run.after is None else State.PENDING.value,
        "args": as_kept(run.args),
        "labels": dict(run.labels),
        "attempt": 1,
        "uncounted": 0,
        "lost": 0,
        "run_at": (run.run_at or now).astimezone(UTC),
        "expires_at": min(moments).astimezone(UTC) if moments else None,
        "unique_key": None if run.unique is None else run.unique.key_for(run.args),
        "cause": None if run.cause is None else orjson.loads(orjson.dumps(run.cause)),
        "after": None
        if run.after is None
        else {
            "when": run.after.when,
            "otherwise": run.after.otherwise,
            "delay_seconds": run.after.delay.total_seconds(),
        },
        "awaited": run.callback_url is not None or run.step is not None,
        "created_at": now,
    }
