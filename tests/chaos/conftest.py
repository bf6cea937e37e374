"""The command that breaks things, as a process that no test leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def chaos() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command; one that still runs when the test ends, or is interrupted, is told to stop, and tidies up."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        command = subprocess.Popen(
            [sys.executable, "-m", "chaos", *arguments],
            cwd=ROOT,
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(command)
        return command

    yield start
    for command in started:
        if command.poll() is None:
            command.terminate()
            command.communicate(timeout=50)
