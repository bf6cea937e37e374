"""Reports from what was heard to what lies in the mailbox: two services, real storage, a database, both transports."""

from __future__ import annotations

import asyncio
import hashlib
import mailbox
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import carillon
import notifications.app
import reports.app
from carillon.cloudevents import Envelope
from carillon.contracts import RollupRow, RollupsComputed
from carillon.migrations import migrate
from carillon.platform import Platform
from carillon.service import Service
from carillon.settings import PlatformSettings
from carillon.testing import eventually, running
from reports.tasks import batch_generate_reports, generate_and_deliver_report, generate_conditional_report, tasks

pytestmark = pytest.mark.long(seconds=60)

ANN, BOB, EVE = "ann@example.org", "bob@example.org", "eve@example.org"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PERIOD = {"report_type": "operations", "start_date": "2026-11-20", "end_date": "2026-11-24"}


def rollups() -> RollupsComputed:
    """Seven runs on each of five days, two of which failed."""
    days = [NOON.replace(hour=0) - timedelta(days=back) for back in range(5)]
    daily = [
        RollupRow(grain="day", bucket=day, kind="run", name="orders.pack", state=state, count=count, seconds=count)
        for day in days
        for state, count in (("completed", 5), ("failed", 2))
    ]
    return RollupsComputed(watermark=NOON, cause="backup.completed.v1", hourly=[], daily=daily)


def assembled(service: Service, settings: PlatformSettings) -> Service:
    """The service as it is deployed, on these servers."""
    return replace(service, settings=settings, port=0)


@pytest.fixture
async def platform(
    settings: PlatformSettings, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Platform]:
    await migrate(database_url, "reports.migrations", "notifications.migrations")
    monkeypatch.setenv("NOTIFICATIONS_MAILDIR", str(tmp_path / "mail"))
    monkeypatch.delenv("NOTIFICATIONS_SMTP_HOST", raising=False)
    async with carillon.connect(tasks, settings=settings) as platform:
        async with (
            running(assembled(reports.app.service(), settings), platform),
            running(assembled(notifications.app.service(), settings), platform),
        ):
            await platform.say(Envelope.of(rollups(), source="/analytics"), actor="a test")
            await eventually(lambda: heard(platform), within=60)
            yield platform
        async with platform.ledger.transaction() as connection:
            await connection.execute("truncate carillon.runs, carillon.attempts, carillon.events, carillon.steps")


async def heard(platform: Platform) -> bool:
    """Whether reports has answered the rollups."""
    query = "select count(*) from carillon.runs where task = 'reports.report_operations' and state = 'completed'"
    return bool(await platform.ledger.pool.fetchval(query))


def mail(folder: Path) -> list[tuple[str, str, str]]:
    """To whom, what, and the SHA-256 of the file, of each message that has one file."""
    found = []
    for message in mailbox.Maildir(folder / "mail", create=False):
        attached = [part for part in message.walk() if part.get_content_disposition() == "attachment"]
        if len(attached) == 1:
            content = hashlib.sha256(attached[0].get_payload(decode=True)).hexdigest()
            found.append((message["To"], attached[0].get_filename(), content))
    return sorted(found)


async def result_of(task: Any) -> Any:
    result = await task.wait_result(timeout=120)
    assert not result.is_err, result.error
    return result.return_value


@pytest.mark.usefixtures("platform")
async def test_a_chain_a_batch_and_a_branch_end_in_the_mailbox(tmp_path):
    chain = await generate_and_deliver_report.kiq(**PERIOD, output_format="pdf", recipients=[ANN, BOB])
    batch = await batch_generate_reports.kiq(
        report_specs=[
            {**PERIOD, "output_format": "excel", "recipients": [ANN]},
            {**PERIOD, "output_format": "json", "recipients": [BOB]},
            {**PERIOD, "output_format": "csv", "recipients": [ANN], "report_type": "sales"},
        ],
        parallel=True,
    )
    branch = await generate_conditional_report.kiq(
        **PERIOD, output_format="html", recipients=[ANN], threshold=9, escalate_to=[EVE]
    )

    delivered, summed, branched = await asyncio.gather(*map(result_of, (chain, batch, branch)))

    assert (delivered["status"], delivered["delivered"]) == ("delivered", [ANN, BOB])
    assert summed["summary"] == {"total": 3, "successful": 2, "failed": 0, "skipped": 1}
    assert (branched["path"], branched["why"]) == ("high_priority", "failed is 10, and above 9")
    name = "operations-2026-11-20-to-2026-11-24"
    sent = [(to, file) for to, file, _ in mail(tmp_path)]
    assert sent == sorted(
        [
            (ANN, f"{name}.pdf"),
            (BOB, f"{name}.pdf"),
            (ANN, f"{name}.xlsx"),
            (BOB, f"{name}.json"),
            (ANN, f"{name}.html"),
            (EVE, f"{name}.html"),
        ]
    )
    assert {sha256 for _, file, sha256 in mail(tmp_path) if file.endswith(".pdf")} == {delivered["artefact"]["sha256"]}
