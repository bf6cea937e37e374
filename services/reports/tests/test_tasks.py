"""What reports hears and does, run whole against a real database and storage."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from carillon.testing import InProcess
from reports.errors import NoDatasetError
from reports.events import report_operations
from reports.operations import OperationsReports
from reports.period_reports import PeriodReports
from reports.tasks import render_operations_report, tasks

if TYPE_CHECKING:
    from tests.conftest import MakeRollups

RUN = UUID("0190f3a0-0000-7000-8000-00000000000a")
BY_HAND = UUID("0190f3a0-0000-7000-8000-00000000000b")


@pytest.fixture
def domain(reports: OperationsReports) -> InProcess:
    """The tasks with all that those of the operations report need."""
    return InProcess(tasks, {OperationsReports: reports, PeriodReports: object()})


async def test_hearing_rollups_twice_says_the_same_report(domain: InProcess, rollups: MakeRollups):
    first = await domain.run(report_operations, event=rollups(), run_id=RUN)
    second = await domain.run(report_operations, event=rollups(), run_id=RUN)

    assert first == second
    assert [event.type for event in domain.said] == ["reports.report_rendered.v1"] * 2


async def test_a_report_by_hand_uses_the_last_rollups_heard(domain: InProcess, rollups: MakeRollups):
    heard = await domain.run(report_operations, event=rollups(), run_id=RUN)

    by_hand = await domain.run(render_operations_report, run_id=BY_HAND)

    assert by_hand.summary == heard.summary
    assert {artefact.sha256 for artefact in by_hand.artefacts} == {artefact.sha256 for artefact in heard.artefacts}


async def test_a_report_by_hand_takes_rollups_as_its_argument(domain: InProcess, rollups: MakeRollups):
    by_hand = await domain.run(render_operations_report, rollups=rollups(rows=0), run_id=BY_HAND)

    assert by_hand.summary.startswith("No run ended in the last 24 hours")


async def test_a_report_by_hand_before_anything_was_heard_fails_for_good(domain: InProcess):
    with pytest.raises(NoDatasetError):
        await domain.run(render_operations_report, run_id=BY_HAND)
