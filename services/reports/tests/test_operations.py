"""Rendering, keeping and remembering, on the real database and with the real renderer."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import obstore
import psutil
import pytest

from reports.days import RememberedDays
from reports.errors import NoDatasetError, RendererFailedError, RendererStoppedError, UnequalTotalsError
from reports.operations import OperationsReports
from reports.renderer import Renderer
from reports.shelf import Shelf

if TYPE_CHECKING:
    from pathlib import Path

    from obstore.store import MemoryStore
    from tests.conftest import MakeRollups

    from reports.store import ReportRegister

RUN = UUID("0190f3a0-0000-7000-8000-000000000001")
OTHER_RUN = UUID("0190f3a0-0000-7000-8000-000000000002")


def keys(storage: MemoryStore) -> list[str]:
    return sorted(entry["path"] for page in obstore.list(storage) for entry in page)


def renderers() -> list[psutil.Process]:
    """Our children that wait in the test's own program; the test servers may be children too."""
    return [child for child in psutil.Process().children() if "time.sleep" in " ".join(child.cmdline())]


def domain(storage: MemoryStore, register: ReportRegister, *program: str, timeout: float = 30) -> OperationsReports:
    command = (sys.executable, "-c", *program)
    return OperationsReports(Renderer(timedelta(seconds=timeout), command), Shelf(storage), register, RememberedDays())


async def test_a_report_is_kept_in_four_formats_with_true_hashes(
    reports: OperationsReports, storage: MemoryStore, rollups: MakeRollups
):
    rendered = await reports.render(RUN, rollups())

    assert [artefact.format for artefact in rendered.artefacts] == ["html", "pdf", "xlsx", "csv"]
    for artefact in rendered.artefacts:
        content = bytes(obstore.get(storage, artefact.key).bytes())
        assert (len(content), hashlib.sha256(content).hexdigest()) == (artefact.size_bytes, artefact.sha256)
        assert artefact.key == f"reports/operations/{RUN}/{artefact.filename}"


async def test_rendering_twice_leaves_one_report(
    reports: OperationsReports, storage: MemoryStore, rollups: MakeRollups
):
    first = await reports.render(RUN, rollups())
    second = await reports.render(RUN, rollups())

    assert first == second
    assert len(keys(storage)) == 4


async def test_two_renderings_at_once_leave_one_report(
    reports: OperationsReports, storage: MemoryStore, rollups: MakeRollups
):
    first, second = await asyncio.gather(reports.render(RUN, rollups()), reports.render(RUN, rollups()))

    assert first == second == await reports.render(RUN)
    assert len(keys(storage)) == 4


async def test_the_last_rollups_heard_can_be_rendered_by_hand(reports: OperationsReports, rollups: MakeRollups):
    older = rollups(rows=5).model_copy(update={"watermark": rollups().watermark - timedelta(hours=1)})
    await reports.hear(rollups())
    await reports.hear(older)

    by_hand = await reports.render(RUN)

    assert by_hand.artefacts[0].sha256 == (await reports.render(OTHER_RUN, rollups())).artefacts[0].sha256


async def test_a_report_of_nothing_heard_yet_says_what_to_do(reports: OperationsReports):
    with pytest.raises(NoDatasetError, match=r"say backup\.requested\.v1"):
        await reports.render(RUN)


async def test_files_that_do_not_add_up_are_not_kept(
    storage: MemoryStore, register: ReportRegister, rollups: MakeRollups
):
    lying = domain(storage, register, "import sys; sys.stderr.write('the pdf file adds up to 3'); sys.exit(65)")

    with pytest.raises(UnequalTotalsError, match="the pdf file adds up to 3"):
        await lying.render(RUN, rollups())

    assert keys(storage) == []
    assert await register.find(RUN) is None


async def test_a_renderer_that_breaks_says_its_last_words(
    storage: MemoryStore, register: ReportRegister, rollups: MakeRollups
):
    broken = domain(storage, register, "raise SystemExit('no more ink')")

    with pytest.raises(RendererFailedError, match="no more ink"):
        await broken.render(RUN, rollups())


async def test_a_killed_renderer_leaves_nothing(storage: MemoryStore, register: ReportRegister, rollups: MakeRollups):
    killed = domain(storage, register, "import os; os.kill(os.getpid(), 9)")

    with pytest.raises(RendererStoppedError, match="killed by signal 9"):
        await killed.render(RUN, rollups())

    assert keys(storage) == []
    assert await register.find(RUN) is None


async def test_a_renderer_that_takes_too_long_is_ended(
    storage: MemoryStore, register: ReportRegister, rollups: MakeRollups
):
    slow = domain(storage, register, "import time; time.sleep(60)", timeout=0.5)

    with pytest.raises(RendererStoppedError, match=r"longer than 0\.5 seconds"):
        await slow.render(RUN, rollups())

    assert renderers() == []


async def test_a_cancelled_run_ends_its_renderer(
    storage: MemoryStore, register: ReportRegister, rollups: MakeRollups, tmp_path: Path
):
    started = tmp_path / "started"
    os.mkfifo(started)
    slow = domain(storage, register, f"import time; open({str(started)!r}, 'w').close(); time.sleep(60)")
    running = asyncio.create_task(slow.render(RUN, rollups()))
    async with asyncio.timeout(10):
        await asyncio.to_thread(started.read_bytes)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert renderers() == []
    assert keys(storage) == []


async def test_the_worker_loads_nothing_that_only_the_renderer_needs():
    heavy = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys, reports.app, reports.operations, reports.renderer, reports.store, reports.shelf;"
        "print(sorted({'typst', 'altair', 'vl_convert', 'xlsxwriter', 'jinja2', 'pypdf'} & sys.modules.keys()))",
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await heavy.communicate()

    assert said.decode().strip() == "[]"
