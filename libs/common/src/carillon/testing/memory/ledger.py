"""The ledger in memory: what the statements of the real one do, over the rows of a `Store`."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from datetime import datetime, timedelta
from heapq import nsmallest
from typing import Any, NoReturn, Self
from uuid import UUID

import orjson

from carillon import clock
from carillon.ledger.followups import CallBack
from carillon.ledger.ledger import End, Ended, Ledger, other_work
from carillon.ledger.records import Claimed, Delivery, Finish, NewEvent, NewRun, Submitted, cause_of
from carillon.testing.memory.admission import MemoryAdmission
from carillon.testing.memory.conditions import MemoryConditions, MemoryFollowups
from carillon.testing.memory.counts import charge, openings
from carillon.testing.memory.policies import MemoryCircuits, MemoryEffects, MemoryLastGood, MemoryPlaces, MemoryTurns
from carillon.testing.memory.steering import MemoryReplays, MemorySteering
from carillon.testing.memory.store import (
    READY,
    Row,
    Store,
    as_kept,
    check_kept,
    copied,
    event_row,
    refuse,
    same_work,
    work_of,
)
from carillon.testing.memory.workflows import MemoryForks, MemoryWorkflows

#: What new ids are; those of another version derive from their cause.
TIME_ORDERED = 7


class MemoryLedger(Ledger):
    """Nothing here awaits between looking and writing, so that each call is a transaction."""

    conditions: MemoryConditions

    def __init__(self, store: Store, *, name: str, call_back: CallBack | None = None) -> None:
        super().__init__("", name=name, carries_events=True, call_back=call_back, linger=0.0)
        self.store = store
        self.admission = MemoryAdmission(self)
        self.conditions = MemoryConditions(self)
        self.followups = MemoryFollowups(self, self.followups.call_back)
        self.steering = MemorySteering(self)
        self.replays: MemoryReplays = MemoryReplays(self)
        self.workflows: MemoryWorkflows = MemoryWorkflows(self)
        self.forks = MemoryForks(self)
        self.circuits = MemoryCircuits(self)
        self.effects = MemoryEffects(self)
        self.last_good = MemoryLastGood(self)
        self.turns = MemoryTurns(self)
        self.places = MemoryPlaces(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""

    @property
    def pool(self) -> NoReturn:
        """None: there is no SQL."""
        refuse("SQL, and so no such question or act")

    def transaction(self) -> NoReturn:
        """None: there is no SQL."""
        refuse("SQL, and so no transactions")

    async def _submit(self, batch: Sequence[tuple[NewRun, bool]]) -> list[Submitted | Exception]:
        return await self.accept(batch)

    async def accept(
        self,
        batch: Sequence[tuple[NewRun, bool]],
        connection: object = None,  # noqa: ARG002 - of the real ledger
    ) -> list[Submitted | Exception]:
        """Accept runs; one outcome for each, in order."""
        # Everything is read before anything is written: what is refused leaves nothing behind.
        for run, _ in batch:
            check_kept(run)
        return [self._accept(run, given) for run, given in batch]

    def _accept(self, run: NewRun, given: bool) -> Submitted | Exception:
        store = self.store
        known = self._work(run.id)
        if known is None:
            if run.id.version != TIME_ORDERED:
                store.causes[run.id] = work_of(run)
            row = store.add(run, given=given)
            return Submitted(run.id, created=True, given=row["dispatched_at"] is not None)
        if same_work(known, run):
            return Submitted(run.id, created=False)
        return other_work(run)

    async def same_work(self, met: Sequence[NewRun], connection: object = None) -> dict[UUID, bool]:  # noqa: ARG002
        """Of runs whose id was accepted before: whether it was the same task, arguments, and what else is covered."""
        known = [(run, self._work(run.id)) for run in met]
        return {run.id: same_work(work, run) for run, work in known if work is not None}

    def _work(self, run: UUID) -> tuple[str | bytes | None, ...] | None:
        """What a run does whose id was accepted before."""
        row = self.store.live.get(run)
        if row is None or run in self.store.causes:
            return self.store.causes.get(run)
        return row["task"], orjson.dumps(row["args"], option=orjson.OPT_SORT_KEYS)

    async def outcome(self, run: UUID) -> Row | None:
        """State, result, error, labels and seconds of execution of a run; None for an unknown one."""
        row = self.store.run(run)
        if row is None:
            return None
        began, ended = row["started_at"], row["finished_at"]
        seconds = (ended - began).total_seconds() if began is not None and ended is not None else None
        return copied({name: row[name] for name in ("state", "result", "error", "labels")} | {"seconds": seconds})

    async def _start(self, batch: Sequence[tuple[UUID, int, UUID]]) -> list[bool]:
        started: set[UUID] = set()
        outcomes = []
        for run, attempt, worker in batch:
            row = self.store.live.get(run)
            starts = row is not None and run not in started and self._starts(row, attempt, worker)
            if starts and row is not None:
                self._begin([row], worker)
                started.add(run)
            outcomes.append(starts)
        return outcomes

    def _begin(self, rows: Sequence[Row], worker: UUID) -> None:
        """Let these runs be running, and take their starts from the buckets at this very moment."""
        for domain in {row["domain"] for row in rows if row["gate"] is not None}:
            charge(self.store, domain)
        for row in rows:
            row |= {"state": "running", "started_at": clock.now(), "worker_id": worker}

    def _starts(self, row: Row, attempt: int, worker: UUID) -> bool:
        if row["attempt"] != attempt:
            return False
        return self.store.may_start(row) or (row["state"], row["worker_id"]) == ("running", worker)

    async def _finish(self, batch: Sequence[tuple[UUID, Finish]]) -> list[End]:
        """End attempts; a rehearsal has a worker of each domain in one process, so that a batch may be of several."""
        # Read before anything is written, as in `accept`.
        read = [
            (
                worker,
                finish,
                None if finish.result is None else as_kept(finish.result),
                None if finish.error is None else as_kept(finish.error),
                [event_row(event) for event in finish.events],
            )
            for worker, finish in batch
        ]
        ended: dict[UUID, End] = {}
        for worker, finish, result, error, events in read:
            row = self.store.live.get(finish.id)
            current = (finish.attempt, "running", worker)
            if row is None or (row["attempt"], row["state"], row["worker_id"]) != current:
                continue
            if finish.state.is_terminal or (row["cancel"] is not None and row["wake_at"] is None):
                ended[finish.id] = End(applied=True, awaited=row["awaited"], limited=row["gate"] is not None)
                state, why = (finish.state.value, error) if finish.state.is_terminal else ("cancelled", row["cancel"])
                self.store.bury(row, state, result=result, error=why, log=finish.log)
                self.workflows.tell_end(row)
                await self._record(events, finish.answers)
            else:
                ended[finish.id] = End(applied=True, limited=row["gate"] is not None)
                self._again(row, finish, error)
        return [ended.get(finish.id, End(applied=False)) for _, finish in batch]

    def _again(self, row: Row, finish: Finish, error: Any) -> None:
        self.store.again(
            row,
            finish.state.value,
            finish.outcome,
            attempt_error=error,
            attempt_log=finish.log,
            error=error,
            log=None,
            uncounted=row["uncounted"] + finish.uncounted,
            run_at=finish.run_at or clock.now(),
        )

    async def _progress(self, batch: Sequence[tuple[UUID, UUID, int, str]]) -> list[None]:
        for worker, run, attempt, report in batch:
            row = self.store.live.get(run)
            if row is not None and (row["attempt"], row["state"], row["worker_id"]) == (attempt, "running", worker):
                row["progress"] = as_kept(report)
        return [None] * len(batch)

    async def say(
        self,
        events: Sequence[NewEvent],
        answers: Sequence[NewRun],
        *,
        connection: object = None,  # noqa: ARG002 - of the real ledger
    ) -> set[UUID]:
        """Record events, and the runs that answer them; returns the ids that were new."""
        return await self._record([event_row(event) for event in events], answers)

    async def _record(self, events: Sequence[Row], answers: Sequence[NewRun]) -> set[UUID]:
        new = {row["id"]: row for row in events if row["id"] not in self.store.events}
        self.store.events |= new
        await self.accept([(run, False) for run in answers if run.event_id in new])
        return set(new)

    async def _mark_published(self, batch: Sequence[UUID]) -> list[None]:
        return [None] * len(batch)

    async def claim(self, domain: str, slots: int, worker: UUID, *, patient: int = 0) -> list[Delivery]:
        """Take and start up to `slots` due runs, `patient` of them those that wait longest."""
        await self.workflows.ring(domain)
        now = clock.now()
        due = [
            row
            for row in self.store.live.values()
            if row["domain"] == domain
            and row["run_at"] <= now
            and row["dispatched_at"] is None
            and self.store.may_start(row)
        ]
        # Of two that are due at one moment the first is the one that was accepted first: rows are in that order.
        oldest = nsmallest(patient, due, key=lambda row: row["run_at"])
        urgent = nsmallest(slots, due, key=lambda row: (-row["priority"], row["run_at"]))
        taken = list({row["id"]: row for row in (*oldest, *urgent)}.values())[:slots]
        self._begin(taken, worker)
        return [_claimed(row) for row in taken]

    async def next_due(self, domain: str) -> float | None:
        """Seconds until the next run that may start is due; None when there is none."""
        due = [
            row["run_at"]
            for row in self.store.live.values()
            if row["domain"] == domain and row["dispatched_at"] is None and self.store.may_start(row)
        ]
        return (min(due) - clock.now()).total_seconds() if due else None

    def next_moment(self) -> datetime | None:
        """When the next run that waits is due, is let in by a rate, or expires; None when the time changes nothing."""
        now, rows = clock.now(), self.store.live.values()
        moments = [row["expires_at"] for row in rows if row["state"] != "running"]
        moments += [row["run_at"] for row in rows if row["state"] in READY]
        moments += self.workflows.next_moment()
        for domain in {row["domain"] for row in rows if row["gated"]}:
            moments += openings(self.store, domain)
        return min((moment for moment in moments if moment is not None and moment > now), default=None)

    async def expire(self, domain: str) -> Ended:
        """Cancel runs that were not started in time."""
        now = clock.now()

        def is_late(row: Row) -> bool:
            return row["state"] != "running" and row["expires_at"] is not None and row["expires_at"] <= now

        late = [row for row in self.store.live.values() if row["domain"] == domain and is_late(row)]
        for row in late:
            what = "its next attempt" if row["attempt"] > 1 else "it"
            message = f"{what} was not started before {row['expires_at']:%F %T.%f+00}"
            self.store.bury(row, "cancelled", error={"type": "Expired", "message": message})
        return _ended(late)

    async def rescue(self, domain: str, silence: timedelta, *, suspicious: int, most: int) -> Ended:
        """Give the runs of workers silent for that long back to the queue.

        A run that lost `suspicious` workers fails where it stands out among what ran and what died (decision 0019), and
        one that lost `most` always.
        """
        before = clock.now() - silence
        workers = [row for row in self.store.workers.values() if row["domain"] == domain]
        silent = [row for row in workers if row["stopped_at"] is None and row["heartbeat_at"] < before]
        gone = {row["id"] for row in [*silent, *(row for row in workers if row["stopped_at"] is not None)]}
        orphans = [row for row in self.store.live.values() if row["state"] == "running" and row["worker_id"] in gone]
        lost = {row["id"]: row["lost"] + 1 for row in orphans}
        guilty = {
            row["id"]
            for row in orphans
            if lost[row["id"]] >= most or (lost[row["id"]] >= suspicious and self._stands_out(row, orphans, silent))
        }
        for row in orphans:
            self._take_from_worker(row, lost[row["id"]], guilty=row["id"] in guilty)
        return _ended(orphans)

    def _stands_out(self, row: Row, orphans: list[Row], silent: list[Row]) -> bool:
        """Whether no other run was there at as many deaths, and fewer workers died without this one than with it."""
        company = [o for o in orphans if o["worker_id"] == row["worker_id"] and o is not row]
        if any(other["lost"] >= row["lost"] for other in company):
            return False
        tried = self.store.attempts.get(row["id"], [])
        since = min((attempt["started_at"] for attempt in tried), default=row["started_at"])
        with_it = {row["worker_id"], *(attempt["worker_id"] for attempt in tried if attempt["outcome"] == "lost")}
        without = [w for w in silent if w["heartbeat_at"] >= since and w["id"] not in with_it]
        return bool(row["lost"] + 1 > len(without))

    def _take_from_worker(self, row: Row, lost: int, *, guilty: bool) -> None:
        if guilty:
            message = f"the worker died {lost} times while it ran this"
            self.store.bury(row, "failed", lost=lost, error={"type": "WorkerLost", "message": message})
        elif row["cancel"] is not None and row["wake_at"] is None:
            self.store.bury(row, "cancelled", lost=lost, error=row["cancel"])
        else:
            why = {"type": "WorkerLost", "message": "its worker stopped answering"}
            self._wait_again(row, "lost", attempt_error=why, lost=lost)

    async def hand_back(self, worker: UUID, *, but: Sequence[UUID] = (), age: timedelta = timedelta(0)) -> Ended:
        """Give the runs of a worker, started at least `age` ago, back to the queue, but for those it has in hand."""
        before = clock.now() - age
        mine = [
            row
            for row in self.store.live.values()
            if (row["state"], row["worker_id"]) == ("running", worker)
            and row["started_at"] <= before
            and row["id"] not in but
        ]
        for row in mine:
            if row["cancel"] is not None and row["wake_at"] is None:
                self.store.bury(row, "cancelled", error=row["cancel"])
            else:
                self._wait_again(row, "handed_back")
        return _ended(mine)

    def _wait_again(self, row: Row, outcome: str, **changed: Any) -> None:
        self.store.again(row, "retrying", outcome, uncounted=row["uncounted"] + 1, run_at=clock.now(), **changed)

    async def take_back(self, domain: str) -> int:  # noqa: ARG002
        """Nothing: no other transport ever had these runs."""
        return 0

    async def unpublished(self, age: timedelta, room: int) -> list[NewEvent]:  # noqa: ARG002
        """None: the ledger itself carries events."""
        return []

    async def unheard(self, domain: str, age: timedelta, oldest: timedelta) -> list[Row]:
        """Events of between these ages without the run of a task of this domain that hears them."""
        before, since = clock.now() - age, clock.now() - oldest
        answered = {(row["event_id"], row["task"]) for row in self.store.runs()}
        return [
            copied(event) | {"task": task["name"]}
            for task in self.store.tasks.values()
            for event in self.store.events.values()
            if task["domain"] == domain
            and task["hears"] == event["type"]
            and max(task["registered_at"], since) < event["recorded_at"] <= before
            and (event["id"], task["name"]) not in answered
        ]

    async def make_days(self) -> int:
        """None: nothing is kept by days."""
        return 0

    async def index_days(self) -> list[str]:
        """None, as above."""
        return []

    async def forget_fires(self, age: timedelta) -> int:  # noqa: ARG002 - of the real ledger
        """None: nothing fires here."""
        return 0

    async def forget(self, age: timedelta) -> int:
        """Forget the runs that ended on a day this long ago, and events as old."""
        before = clock.now() - age
        runs = [run for run, row in self.store.ended.items() if row["ended_on"] < before.date()]
        events = [event for event, row in self.store.events.items() if row["recorded_at"] < before]
        for run in runs:
            del self.store.ended[run]
            self.store.attempts.pop(run, None)
            self.store.causes.pop(run, None)
            self.store.needs.pop(run, None)
            self.store.steps.pop(run, None)
            self.store.accepted.remove(run)
        for event in events:
            del self.store.events[event]
        return len(runs) + len(events)

    async def enrol(self, worker: UUID, domain: str, host: str, pid: int, version: str, concurrency: int) -> None:
        """Enter a worker; its heartbeat keeps its runs from being rescued."""
        now = clock.now()
        told = {"id": worker, "domain": domain, "host": host, "pid": pid, "version": version}
        self.store.workers[worker] = told | {
            "concurrency": concurrency, "running": 0, "started_at": now, "heartbeat_at": now, "stopped_at": None,
        }  # fmt: skip

    async def heartbeat(self, worker: UUID, running: int) -> bool:
        """Say that a worker lives; False when it was retired."""
        row = self.store.workers.get(worker)
        if row is None or row["stopped_at"] is not None:
            return False
        row |= {"heartbeat_at": clock.now(), "running": running}
        return True

    async def retire(self, worker: UUID) -> None:
        """Enter that a worker stopped by itself."""
        if worker in self.store.workers:
            self.store.workers[worker] |= {"stopped_at": clock.now(), "running": 0}


def _ended(moved: Sequence[Row]) -> Ended:
    return Ended(len(moved), [row["id"] for row in moved if row["finished_at"] is not None and row["awaited"]])


def _claimed(row: Row) -> Delivery:
    same = ("id", "attempt", "uncounted", "task", "priority", "traceparent", "deadline_at", "step")
    return Claimed(
        **{name: row[name] for name in same},
        args=deepcopy(row["args"]),
        labels=dict(row["labels"]),
        cause=cause_of(row["cause"]),
    )
