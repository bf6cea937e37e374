"""The command for real: its smallest scenario, and its end when somebody has had enough."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.long(seconds=150)

ROOT = Path(__file__).parents[2]
SMALLEST = ("--only", "F1", "--transport", "postgres", "--seed", "7")


@pytest.fixture
def places() -> Iterator[Path]:
    """A folder for temporary files that another user may pass through, as PostgreSQL has to."""
    made = Path(tempfile.mkdtemp(prefix="carillon-tests-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


def chaos(places: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "chaos", *arguments, "--results", str(places / "results")],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(places)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes_of(places: Path) -> list[list[str]]:
    """The command lines of processes that work in a folder."""
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if any(str(places) in word for word in line)]


def test_workers_that_are_killed_lose_nothing_and_who_goes_on_does_not_play_it_again(places):
    command = chaos(places, *SMALLEST)
    said, _ = command.communicate(timeout=100)
    (file,) = (places / "results").glob("*.json")
    (row,) = json.loads(file.read_text())["rows"]

    assert command.returncode == 0, said
    assert (row["scenario"], row["transport"], row["seed"], row["verdict"]) == ("F1", "postgres", 7, "pass")
    assert row["faults"]["workers killed"] > 0
    assert row["accepted"] > 100
    assert (row["lost"], row["dup_effect"], row["stuck"]) == (0, 0, 0)
    assert [entry.name for entry in places.iterdir()] == ["results"]

    again = chaos(places, *SMALLEST, "--continue", str(file))
    said, _ = again.communicate(timeout=60)

    assert (again.returncode, "0 turns" in said, "1 of 1 turns as they should be" in said) == (0, True, True), said


def test_a_table_of_another_profile_is_not_gone_on_with(places):
    table = places / "full.json"
    table.write_text('{"profile": "full", "rows": []}')

    command = chaos(places, *SMALLEST, "--continue", str(table))
    said, _ = command.communicate(timeout=60)

    assert (command.returncode, "is of the profile full, and this run is of quick" in said) == (1, True), said


def test_a_run_that_is_told_to_stop_leaves_no_process_and_no_folder(places):
    command = chaos(places, *SMALLEST)
    lines = iter(command.stdout.readline, "")
    began = any(line.startswith("[1/1]") for line in lines)
    servers = processes_of(places)
    command.send_signal(signal.SIGTERM)
    said, _ = command.communicate(timeout=60)

    assert began
    assert servers
    assert (command.returncode, "interrupted" in said) == (130, True), said
    assert processes_of(places) == []
    assert list(places.iterdir()) == []
