"""Chain, batch and branch, rehearsed in memory: who gets what, what fails alone, and what is done again."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from carillon import Retry, Tasks
from carillon.contracts import Artefact
from carillon.errors import PermanentError, TransientError
from carillon.ledger.audit import Actor
from carillon.ledger.records import Priority
from carillon.testing import Rehearsal
from carillon.testing.crashes import Scenario, every_crash
from reports.collecting import days_in
from reports.days import RememberedDays
from reports.events import tasks
from reports.files import RenderedFile, period_stem
from reports.operations import OperationsReports
from reports.period_rendering import write
from reports.period_reports import PeriodReports
from reports.tasks import (
    batch_generate_reports,
    collect_report_data,
    deliver_report,
    format_report,
    generate_and_deliver_report,
    generate_conditional_report,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from uuid import UUID

    from tests.conftest import MakeRollups

    from carillon.contracts import ReportRendered
    from carillon.testing import RehearsedRun
    from reports.files import FileFormat
    from reports.operations import RenderedReport
    from reports.periods import PeriodData

    MakeWorld = Callable[["PostRoom"], dict[type, object]]

ANN, BOB, EVE = "ann@example.org", "bob@example.org", "eve@example.org"
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LONG_AGO = {"start_date": "2025-01-01", "end_date": "2025-01-31"}


def spec(*recipients: str, **changes: Any) -> dict[str, Any]:
    """A report that can be made of the rollups of these tests."""
    return {
        "report_type": "operations",
        "start_date": "2026-11-11",
        "end_date": "2026-11-24",
        "output_format": "csv",
        "recipients": list(recipients or (ANN,)),
        **changes,
    }


@dataclass
class PostRoom:
    """Takes the place of notifications, whose task it has; refuses whom it was told to, as often as it was told to."""

    #: What was mailed to whom; the same artefact to the same recipient once, as notifications promises.
    mailed: list[tuple[str, str]] = field(default_factory=list)
    known: set[tuple[str, str]] = field(default_factory=set)
    titles: list[str] = field(default_factory=list)
    #: By recipient: how often mail is deferred; negative for mail that is refused for good.
    fails: Counter[str] = field(default_factory=Counter)


post = Tasks("notifications")


@post.task(retry=Retry(attempts=5, base=timedelta(seconds=10)))
async def mail_artefact(
    artefact: Artefact, to: str, title: str, summary: str, as_of: str, *, room: PostRoom
) -> dict[str, list[str]]:
    """Note that it was mailed."""
    assert summary
    assert as_of
    if room.fails[to] < 0:
        raise PermanentError(f"550 no mailbox {to}")
    if room.fails[to]:
        room.fails[to] -= 1
        raise TransientError("451 come back later")
    if (artefact.key, to) not in room.known:
        room.known.add((artefact.key, to))
        room.mailed.append((artefact.filename, to))
        room.titles.append(title)
    return {"delivered": [to], "refused": []}


class Here:
    """Renders in the test's own process, and counts; breaks as often as it was told to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.rendered: list[str] = []
        self.breaks = 0

    async def render(self, data: PeriodData, kind: FileFormat) -> RenderedFile:
        """One file, checked."""
        if self.breaks:
            self.breaks -= 1
            raise TransientError("no more ink")
        path = self._folder / f"{period_stem(data.period)}.{kind}"
        assert write(data, kind, path) == ""
        self.rendered.append(path.name)
        return RenderedFile(kind, path.name, path.read_bytes())


class RememberedFiles:
    """The shelf in memory: a rehearsal does not see that somebody waits for storage."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    async def keep(self, key: str, content: bytes) -> None:
        """Keep one file."""
        self._kept[key] = content

    async def keep_first(self, key: str, content: bytes) -> bytes:
        """Keep one file, unless it is there."""
        return self._kept.setdefault(key, content)

    async def read(self, key: str) -> bytes:
        """One file."""
        try:
            return self._kept[key]
        except KeyError:
            raise FileNotFoundError(key) from None


class RememberedReports:
    """The register in memory, as far as reports over a period use it."""

    def __init__(self) -> None:
        self._known: dict[UUID, ReportRendered] = {}

    async def find(self, report_id: UUID) -> ReportRendered | None:
        """A report rendered before."""
        return self._known.get(report_id)

    async def record(self, report: RenderedReport) -> None:
        """Remember a report, once."""
        self._known.setdefault(report.id, report.rendered)


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


@pytest.fixture
def room() -> PostRoom:
    return PostRoom()


@pytest.fixture
def world(rollups: MakeRollups, here: Here) -> MakeWorld:
    """Makes all that the tasks need, anew, around a post room."""

    def make(room: PostRoom) -> dict[type, object]:
        days, shelf, register = RememberedDays(days_in(rollups())), RememberedFiles(), RememberedReports()
        return {
            PeriodReports: PeriodReports(days, here, shelf, register),
            OperationsReports: OperationsReports(None, shelf, register, days),
            PostRoom: room,
        }

    return make


@pytest.fixture
async def rehearsal(world: MakeWorld, room: PostRoom) -> AsyncIterator[Rehearsal]:
    async with Rehearsal(tasks, post, resources=world(room)) as rehearsal:
        yield rehearsal


async def ended(rehearsal: Rehearsal, workflow: Any, **arguments: Any) -> RehearsedRun:
    """A run of a workflow, after whatever it waits for within a day."""
    task = await workflow.kiq(**arguments)
    await rehearsal.settle()
    if not rehearsal.run(task).state.is_terminal:
        await rehearsal.advance(timedelta(hours=12))
    return rehearsal.run(task)


async def test_a_report_is_collected_formatted_and_delivered_to_each_recipient(rehearsal, room):
    run = await ended(rehearsal, generate_and_deliver_report, **spec(ANN, BOB, ANN))

    assert run.state == "completed"
    assert (run.result["status"], run.result["delivered"], run.result["refused"]) == ("delivered", [ANN, BOB], [])
    assert run.result["artefact"]["format"] == "csv"
    assert sorted(room.mailed) == [(run.result["artefact"]["filename"], to) for to in (ANN, BOB)]
    assert set(room.titles) == {"Operations report, 11 Nov 2026 to 24 Nov 2026"}


async def test_a_batch_counts_what_went_well_what_failed_and_what_was_skipped(rehearsal, room):
    room.fails[BOB] = -1
    specs = [
        spec(ANN, output_format="excel"),
        spec(BOB, output_format="json"),
        spec(ANN, report_type="sales"),
        spec(ANN, **LONG_AGO, skip_if_empty=True),
        spec(ANN, **LONG_AGO),
    ]

    run = await ended(rehearsal, batch_generate_reports, report_specs=specs, parallel=True)

    assert run.state == "partial"
    assert run.result["summary"] == {"total": 5, "successful": 1, "failed": 2, "skipped": 2}
    reasons = [(member["status"], member["reason"]) for member in run.result["reports"]]
    assert reasons[0] == ("successful", None)
    assert reasons[1][0] == "failed"
    assert "550 no mailbox bob@example.org" in reasons[1][1]
    assert reasons[2] == ("skipped", "report_type: there is no report 'sales'; there are operations, failures")
    assert reasons[3] == ("skipped", "No rollups were heard of any day from 1 Jan 2025 to 31 Jan 2025")
    assert reasons[4][0] == "failed"
    assert "ask for a period since then" in reasons[4][1]
    assert room.mailed == [("operations-2026-11-11-to-2026-11-24.xlsx", ANN)]


@pytest.mark.parametrize("parallel", [True, False])
async def test_a_batch_goes_side_by_side_or_one_after_the_other(rehearsal, room, parallel):
    room.fails[ANN] = 1
    task = await batch_generate_reports.kiq(report_specs=[spec(ANN), spec(BOB)], parallel=parallel)

    await rehearsal.settle()
    meanwhile = [to for _, to in room.mailed]
    await rehearsal.advance(timedelta(hours=1))

    assert meanwhile == ([BOB] if parallel else [])
    assert rehearsal.run(task).state == "completed"
    assert [to for _, to in room.mailed] == ([BOB, ANN] if parallel else [ANN, BOB])


@pytest.mark.parametrize(("need", "state"), [(0.0, "partial"), (0.5, "partial"), (0.6, "failed"), (1.0, "failed")])
async def test_the_least_share_decides_what_a_batch_ends_as_and_empty_reports_do_not_count(
    rehearsal, room, need, state
):
    room.fails[BOB] = -1
    specs = [spec(ANN), spec(BOB), spec(ANN, **LONG_AGO, skip_if_empty=True)]

    run = await ended(rehearsal, batch_generate_reports, report_specs=specs, need=need)

    assert run.state == state
    if state == "failed":
        assert run.error["message"].startswith("1 of 2 reports went well, and 2 have to")


async def test_a_batch_of_which_nothing_went_well_fails_whatever_its_policy(rehearsal, room):
    room.fails[ANN] = -1

    run = await ended(rehearsal, batch_generate_reports, report_specs=[spec(ANN), spec(ANN, report_type="sales")])

    assert (run.state, run.error["type"]) == ("failed", "BatchFailedError")


async def test_a_batch_of_empty_reports_that_may_be_skipped_is_complete(rehearsal, room):
    specs = [spec(ANN, **LONG_AGO, skip_if_empty=True)]

    run = await ended(rehearsal, batch_generate_reports, report_specs=specs, need=1.0)

    assert (run.state, run.result["summary"]["skipped"]) == ("completed", 1)
    assert room.mailed == []


async def test_only_the_step_that_failed_is_done_again(rehearsal, here, room):
    room.fails[BOB] = 3
    here.breaks = 2

    run = await ended(rehearsal, generate_and_deliver_report, **spec(ANN, BOB))

    assert run.state == "completed"
    assert sorted(to for _, to in room.mailed) == [ANN, BOB]
    assert len(here.rendered) == 1
    assert [len(each.attempts) for each in rehearsal.runs(collect_report_data)] == [1]
    assert [len(each.attempts) for each in rehearsal.runs(format_report)] == [3]
    assert sorted(len(each.attempts) for each in rehearsal.runs(mail_artefact)) == [1, 4]


async def test_a_recipient_who_refuses_makes_the_delivery_partial_and_the_others_are_served(rehearsal, room):
    room.fails[BOB] = -1

    run = await ended(rehearsal, generate_and_deliver_report, **spec(ANN, BOB))

    assert (run.state, run.result["delivered"]) == ("partial", [ANN])
    assert [refusal["recipient"] for refusal in run.result["refused"]] == [BOB]
    assert "550 no mailbox" in run.result["reason"]
    (delivering,) = rehearsal.runs(deliver_report)
    assert delivering.state == "partial"


async def test_a_mail_that_failed_for_good_can_be_run_again_and_goes_to_that_recipient_alone(rehearsal, room):
    room.fails[BOB] = -1
    await ended(rehearsal, generate_and_deliver_report, **spec(ANN, BOB))
    (failed,) = [mail for mail in rehearsal.runs(mail_artefact) if mail.state == "failed"]
    room.fails[BOB] = 0

    again = await rehearsal.platform.ledger.replays.replay(failed.id, Actor("ada", "a test"))
    await rehearsal.settle()

    assert rehearsal.run(again.id).state == "completed"
    assert [to for _, to in room.mailed] == [ANN, BOB]


async def test_a_report_that_nobody_takes_fails(rehearsal, room):
    room.fails[ANN] = -1

    run = await ended(rehearsal, generate_and_deliver_report, **spec(ANN))

    assert run.state == "failed"
    assert "NobodyReachedError: 1 of 1 recipients were not reached" in run.error["message"]


async def test_a_delivery_whose_mail_never_goes_out_ends_after_a_day(rehearsal, room):
    task = await generate_and_deliver_report.kiq(**spec(ANN))
    await rehearsal.platform.ledger.steering.pause("notifications.mail_artefact", Actor("ada", "a test"))

    await rehearsal.advance(timedelta(hours=23))
    before = rehearsal.run(task).state
    await rehearsal.advance(timedelta(hours=2))

    assert before == "pending"
    assert (rehearsal.run(task).state, room.mailed) == ("failed", [])
    assert "DeadlineExceeded" in rehearsal.run(task).error["message"]


async def test_a_report_that_there_is_not_is_refused_with_what_there_is(rehearsal):
    run = await ended(rehearsal, generate_and_deliver_report, **spec(ANN, report_type="sales"))

    assert run.state == "failed"
    assert run.error["message"] == "report_type: there is no report 'sales'; there are operations, failures"
    assert rehearsal.runs(collect_report_data) == []


async def test_a_period_of_which_nothing_is_known_is_not_reported_as_zero(rehearsal, room):
    run = await ended(rehearsal, generate_and_deliver_report, **spec(ANN, **LONG_AGO))

    assert run.state == "failed"
    assert "No rollups were heard of any day from 1 Jan 2025 to 31 Jan 2025" in run.error["message"]
    assert room.mailed == []


async def test_many_failures_take_the_high_priority_path_down_to_the_last_mail(rehearsal, room):
    run = await ended(
        rehearsal, generate_conditional_report, **spec(ANN), threshold=10, measure="failed", escalate_to=[EVE]
    )

    assert (run.state, run.result["path"]) == ("completed", "high_priority")
    assert run.result["why"] == f"failed is {run.result['numbers']['failed']:g}, and above 10"
    assert sorted(to for _, to in room.mailed) == [ANN, EVE]
    steps = [*rehearsal.runs(format_report), *rehearsal.runs(deliver_report), *rehearsal.runs(mail_artefact)]
    assert {step.priority for step in steps} == {Priority.HIGH}


async def test_few_failures_take_the_standard_path_and_trouble_nobody_else(rehearsal, room):
    run = await ended(
        rehearsal, generate_conditional_report, **spec(ANN), threshold=1000, measure="failed", escalate_to=[EVE]
    )

    assert (run.state, run.result["path"]) == ("completed", "standard")
    assert run.result["why"] == f"failed is {run.result['numbers']['failed']:g}, and not above 1000"
    assert [to for _, to in room.mailed] == [ANN]
    assert {step.priority for step in rehearsal.runs(mail_artefact)} == {Priority.NORMAL}


def without_ids(value: Any) -> Any:
    """A result with the ids of runs, which are other ones in each trial, left out."""
    if isinstance(value, dict):
        return {name: without_ids(inside) for name, inside in value.items()}
    if isinstance(value, list):
        return [without_ids(inside) for inside in value]
    return ID.sub("(id)", value) if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("workflow", "arguments"),
    [
        (generate_and_deliver_report, spec(ANN, BOB)),
        (batch_generate_reports, {"report_specs": [spec(ANN), spec(BOB, report_type="sales"), spec(BOB)]}),
        (batch_generate_reports, {"report_specs": [spec(ANN), spec(BOB)], "parallel": False}),
        (generate_conditional_report, {**spec(ANN), "threshold": 10, "escalate_to": [EVE]}),
    ],
    ids=["chain", "parallel", "one after the other", "branch"],
)
async def test_wherever_a_worker_dies_the_end_is_the_same_and_nobody_gets_a_report_twice(
    workflow: Any, arguments: dict[str, Any], world: MakeWorld
):
    def scenario() -> Scenario:
        room = PostRoom()
        return Scenario(
            tasks=[tasks, post],
            start=lambda: workflow.kiq(**arguments),
            effects=lambda: sorted(room.mailed),
            resources=world(room),
        )

    undisturbed, crashed = await every_crash(scenario)

    same = (undisturbed.end.state, without_ids(undisturbed.end.result), undisturbed.end.effects)
    ends = {t.died: (t.end.state, without_ids(t.end.result), t.end.effects) for t in crashed}
    assert undisturbed.end.state in {"completed", "partial"}
    assert len(crashed) > 20
    assert {died: end for died, end in ends.items() if end != same} == {}
    assert all(trial.died is not None for trial in crashed)
