"""Runs the rendering programs as children: with a deadline, killed when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from reports.dataset import REPORT
from reports.errors import RendererFailedError, RendererStoppedError, UnequalTotalsError
from reports.files import OPERATIONS_FORMATS, UNEQUAL, RenderedFile, period_stem, stem

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Sequence
    from datetime import timedelta

    from pydantic import BaseModel

    from reports.dataset import OperationsData
    from reports.files import FileFormat
    from reports.periods import PeriodData

_COMMAND = (sys.executable, "-m", "reports.rendering")
_PERIOD_COMMAND = (sys.executable, "-m", "reports.period_rendering")
#: All a renderer may know of the worker's environment; no address, no password.
_PASSED_ON = ("PATH", "PYTHONPATH", "LANG", "LD_LIBRARY_PATH")
_LAST_WORDS = 2000


class Renderer:
    """Turns a data set into checked files."""

    def __init__(self, timeout: timedelta, command: Sequence[str] = _COMMAND) -> None:
        self._child = _Child(timeout, command)

    async def render(self, data: OperationsData) -> list[RenderedFile]:
        """Every format of the report; raises an error of `reports.errors` and gives nothing where one is wrong."""
        return await self._child.files(data, OPERATIONS_FORMATS, stem(REPORT, data.as_of))


class PeriodRenderer:
    """Turns the data set of a period into one checked file."""

    def __init__(self, timeout: timedelta, command: Sequence[str] = _PERIOD_COMMAND) -> None:
        self._child = _Child(timeout, command)

    async def render(self, data: PeriodData, kind: FileFormat) -> RenderedFile:
        """The report in this format; raises as `Renderer` does."""
        (file,) = await self._child.files(data, (kind,), period_stem(data.period), kind)
        return file


class _Child:
    """One rendering program, run anew for each report."""

    def __init__(self, timeout: timedelta, command: Sequence[str]) -> None:
        self._timeout = timeout
        self._command = command

    async def files(
        self, data: BaseModel, kinds: Sequence[FileFormat], files_stem: str, *arguments: str
    ) -> list[RenderedFile]:
        with TemporaryDirectory(prefix="carillon-report-") as name:
            folder = Path(name)
            await self._run(data.model_dump_json().encode(), folder, files_stem, *arguments)
            return await asyncio.to_thread(_collect, folder, files_stem, kinds)

    async def _run(self, data: bytes, folder: Path, *arguments: str) -> None:
        child = await asyncio.create_subprocess_exec(
            *self._command,
            str(folder),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            cwd=folder,
            env=_environment(folder),
            # Ctrl-C in a terminal reaches the worker, which then lets its runs finish.
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                _, said = await child.communicate(data)
        except TimeoutError:
            message = (
                f"rendering took longer than {self._timeout.total_seconds():g} seconds; "
                "if that happens again, raise REPORTS_RENDERING_TIMEOUT_SECONDS"
            )
            raise RendererStoppedError(message) from None
        finally:
            await _end(child)
        _judge(child.returncode or 0, said.decode(errors="replace")[-_LAST_WORDS:].strip())


async def _end(child: Process) -> None:
    if child.returncode is None:
        child.kill()
        await child.wait()


def _judge(code: int, last_words: str) -> None:
    if code == UNEQUAL:
        message = f"the report was not kept, because {last_words}; report this as a defect of the renderer"
        raise UnequalTotalsError(message)
    if code < 0:
        message = f"the renderer was killed by signal {-code}; if that happens again, give the machine more memory"
        raise RendererStoppedError(message)
    if code:
        reason = last_words.splitlines()[-1] if last_words else "it said nothing"
        message = f"the renderer ended with code {code}: {reason}\n{last_words}".strip()
        raise RendererFailedError(message)


def _collect(folder: Path, files_stem: str, kinds: Sequence[FileFormat]) -> list[RenderedFile]:
    names = {kind: f"{files_stem}.{kind}" for kind in kinds}
    return [RenderedFile(kind, name, (folder / name).read_bytes()) for kind, name in names.items()]


def _environment(folder: Path) -> dict[str, str]:
    """A private home and temporary folder, which vanish with the report's."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**passed_on, "HOME": str(folder), "TMPDIR": str(folder)}
