"""The command for real: its smallest scenario, and its end when somebody has had enough."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

#: What takes seconds takes minutes on a machine that others use too, and that is no reason to fail.
LIMIT_SECONDS = 240
pytestmark = [pytest.mark.long(seconds=110), pytest.mark.timeout(3 * LIMIT_SECONDS)]

SMALLEST = ("--only", "F1", "--transport", "postgres", "--seed", "7")


@pytest.fixture
def places() -> Iterator[Path]:
    """A folder for temporary files that another user may pass through, as PostgreSQL has to."""
    made = Path(tempfile.mkdtemp(prefix="carillon-tests-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def command(places: Path, chaos: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.Popen[str]]:
    """Starts the smallest scenario with everything it writes in `places`."""
    return lambda *more: chaos(*SMALLEST, *more, "--results", str(places / "results"), TMPDIR=str(places))


def processes_of(places: Path) -> list[list[str]]:
    """The command lines of processes that work in a folder."""
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if any(str(places) in word for word in line)]


def test_workers_that_are_killed_lose_nothing_and_who_goes_on_does_not_play_it_again(places, command):
    first = command()
    said, _ = first.communicate(timeout=LIMIT_SECONDS)
    (file,) = (places / "results").glob("*.json")
    (row,) = json.loads(file.read_text())["rows"]

    assert first.returncode == 0, said
    assert (row["scenario"], row["transport"], row["seed"], row["verdict"]) == ("F1", "postgres", 7, "pass")
    assert row["faults"]["workers killed"] > 0
    assert row["accepted"] > 100
    assert (row["lost"], row["dup_effect"], row["stuck"]) == (0, 0, 0)
    assert [entry.name for entry in places.iterdir()] == ["results"]

    again = command("--continue", str(file))
    said, _ = again.communicate(timeout=LIMIT_SECONDS)

    assert (again.returncode, "0 turns" in said, "1 of 1 turns as they should be" in said) == (0, True, True), said


def test_a_table_of_another_profile_is_not_gone_on_with(places, command):
    table = places / "full.json"
    table.write_text('{"profile": "full", "rows": []}')

    refused = command("--continue", str(table))
    said, _ = refused.communicate(timeout=LIMIT_SECONDS)

    assert (refused.returncode, "is of the profile full, and this run is of quick" in said) == (1, True), said


def test_a_run_that_is_told_to_stop_leaves_no_process_and_no_folder(places, command):
    told = command()
    lines = iter(told.stdout.readline, "")
    began = any(line.startswith("[1/1]") for line in lines)
    servers = processes_of(places)
    told.send_signal(signal.SIGTERM)
    said, _ = told.communicate(timeout=LIMIT_SECONDS)

    assert began
    assert servers
    assert (told.returncode, "interrupted" in said) == (130, True), said
    assert processes_of(places) == []
    assert list(places.iterdir()) == []
