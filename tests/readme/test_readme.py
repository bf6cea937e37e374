"""Every command and example of the README is executed, on a platform that its own first command started.

The container commands are executed by `make test-compose`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from carillon.migrations import migrate
from carillon.settings import PlatformSettings
from carillon.testing import InProcess, Rehearsal, eventually, running

pytestmark = pytest.mark.long(seconds=100)

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SHELL = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block(word: str) -> str:
    (found,) = [text for text in SHELL if word in text]
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Platform:
    """What `make run` started, and a shell beside it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.env = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "RABBIT_URL"}}
        self.env |= {"CARILLON_HOME": str(home), "CARILLON_PORT": str(self.port)}
        self.log = (home.parent / "run.log").open("w")
        command = block("make run").split("#")[0]
        self.process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"], cwd=ROOT, env=self.env, stdout=self.log, stderr=self.log,
            start_new_session=True,
        )  # fmt: skip

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and self.process.poll() is None:
            if "See it work" in Path(self.log.name).read_text():
                return
            time.sleep(0.1)  # between two looks; the deadline is above
        raise AssertionError(f"not ready: {Path(self.log.name).read_text()[-3000:]}")

    def shell(self, commands: str) -> str:
        here = commands.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}").replace(".carillon/", f"{self.home}/")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", here], cwd=ROOT, env=self.env, capture_output=True, text=True,
            timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stop(self) -> int:
        # As Ctrl-C does: to everything that the terminal started.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    # Not below pytest's own folder: as root, PostgreSQL runs as somebody who may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="carillon-readme-"))
    folder.chmod(0o711)
    started = Platform(folder / "home")
    try:
        started.wait_until_ready()
        yield started
    finally:
        code = started.stop()
        started.log.close()
    # make itself dies of the Ctrl-C, after what it started has stopped.
    assert code in {0, -signal.SIGINT}
    assert "stopped; the data stays" in Path(started.log.name).read_text()
    shutil.rmtree(folder)


def test_make_run_says_what_the_readme_shows(platform):
    said = Path(platform.log.name).read_text()

    for line in ("Carillon is up after", "Status page", "With the key", "make tour", "Ctrl-C"):
        assert line in said
        assert line in README


def test_the_tour_shows_the_chain_that_the_readme_shows(platform):
    said = platform.shell(block("make tour"))

    shown = re.findall(r"^done +(\S+)", README, re.MULTILINE)
    assert len(shown) == 5
    for task in shown:
        assert task in said
    assert ".pdf" in said


def test_the_schedules_are_listed(platform):
    listed = json.loads(platform.shell(block("tasks/scheduled")))

    assert "nightly-backup" in {schedule["name"] for schedule in listed["schedules"]}


def test_a_kick_is_accepted(platform):
    answer = json.loads(platform.shell(block("tasks/backup/kick")))

    assert answer["task_id"]


def test_the_metrics_are_served(platform):
    assert "process_cpu_seconds_total" in platform.shell(block("/metrics"))


def test_the_doctor_finds_everything_well(platform):
    # The doctor of a platform that `make run` started finds its servers through CARILLON_HOME.
    assert "Everything is well" in platform.shell(block("carillon doctor"))


def test_the_audit_trail_is_shown_and_holds(platform):
    said = platform.shell(block("carillon audit"))

    assert "schedule.created" in said
    assert "The chain holds" in said


def test_runs_and_queues_are_steered(platform):
    said = platform.shell(block("carillon submit"))

    assert "paused: not before the maintenance" in said
    for words in ("is paused.", "is queued.", "reports is paused", "the disk is moved", "1 cancelled."):
        assert words in said


def test_what_happened_is_found_and_counted(platform):
    said = platform.shell(block("carillon stats"))

    assert re.search(r"^\S+ +backup.back_up_requested_source +completed", said, re.MULTILINE)
    assert re.search(r"^backup.back_up_requested_source +\d+", said, re.MULTILINE)


def test_a_new_domain_is_written_and_what_comes_next_is_printed(tmp_path):
    written = subprocess.run(
        [*block("carillon new").split(), "--into", str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip

    # `tests/newdomain` does what is printed.
    assert written.returncode == 0, written.stderr
    assert (tmp_path / "billing/src/billing/workflows.py").is_file()
    for what in ("# Install it", "# Test it", "# Run it", "# Submit to it"):
        assert what in written.stdout


def test_an_event_is_published_over_http(platform):
    answer = json.loads(platform.shell(block("/api/v1/events")))

    assert answer


def test_make_test_is_the_command_of_ci():
    command = block("make test").split("#")[0].strip()
    done = subprocess.run(
        [*command.split(), "ARGS=--collect-only -q libs/common/tests/embedded"], cwd=ROOT, capture_output=True,
        text=True, timeout=100, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"exec {command}" in (ROOT / ".ci/run").read_text()


def test_one_service_runs_alone_on_shared_servers(database_url, rabbit_url, rabbit_prefix, tmp_path):
    variables, migrate_line, serve_line = block("carillon serve backup").strip().splitlines()
    assert variables.startswith("export DATABASE_URL=")
    env = os.environ | {
        "DATABASE_URL": database_url, "RABBIT_URL": rabbit_url, "RABBIT_QUEUE_PREFIX": rabbit_prefix,
        "STORAGE_URL": str(tmp_path), "BACKUP_PORT": "0", "CARILLON_LOG_FORMAT": "json",
    }  # fmt: skip

    subprocess.run(migrate_line.split(), cwd=ROOT, env=env, timeout=60, check=True)
    served = subprocess.Popen(serve_line.split(), cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert served.stdout is not None
        started = next((line for line in served.stdout if "worker started" in line), "")
    finally:
        served.terminate()
        served.communicate(timeout=40)

    assert '"transport":"rabbitmq"' in started
    assert served.returncode == 0


@pytest.fixture
def billing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    package = tmp_path / "billing"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tasks.py").write_text(PYTHON[0] + PYTHON[2])
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == "billing"]:
        del sys.modules[name]


async def ended_run(platform, run):
    row = await platform.history.run(run)
    return row if row["finished_at"] else None


async def test_the_task_that_the_readme_writes_runs_and_its_result_is_waited_for(
    billing, database_url, tmp_path, monkeypatch, capsys
):
    from billing.tasks import convert, send_invoice, tasks

    from carillon import Service
    from carillon.ids import new_id
    from carillon.ledger.records import NewRun
    from carillon.platform import Platform as Connected

    await migrate(database_url, "carillon.ledger.migrations")
    monkeypatch.setenv("DATABASE_URL", database_url)
    for name in ("RABBIT_URL", "RABBIT_HOST"):
        monkeypatch.delenv(name, raising=False)
    settings = PlatformSettings(database_url=SecretStr(database_url), storage_url=str(tmp_path))
    client: dict[str, object] = {}
    exec(compile(PYTHON[1], "README.md", "exec"), client)  # noqa: S102 - the README's own example

    alone = await InProcess(tasks, {}).run(send_invoice, order="order-17")
    service = Service(name="billing", settings=settings, tasks=tasks)
    async with Connected(settings, name="test") as platform, running(service, platform):
        await asyncio.wait_for(client["main"](), 20)
        for example, name in ((PYTHON[4], "maintain"), (PYTHON[5], "report")):
            exec(compile(example, "README.md", "exec"), client)  # noqa: S102 - the README's own example
            await asyncio.wait_for(client[name](), 20)
        run = NewRun(id=new_id(), domain="billing", task=convert.task_name, args='{"file": "a.pdf"}')
        await platform.submit(run)
        ended = await eventually(lambda: ended_run(platform, run.id), within=30)

    assert (ended["result"], ended["progress"]["message"]) == ("a.pdf", "page 99 of a.pdf")
    assert alone["order"] == "order-17"
    said = capsys.readouterr().out
    assert "'order': 'order-17'" in said
    assert "billing is paused by ada: the disk is moved" in said
    assert "0 runs will be cancelled, among them []" in said
    assert "1 recent, 0 failed, in a day {'completed': 1}" in said


#: A plain pytest, in which nothing can connect anywhere.
ALONE = """
import socket

def refuse(self, address):
    raise AssertionError(f"{address} was connected to")

socket.socket.connect = socket.socket.connect_ex = refuse
"""
CONFIGURED = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


def test_the_test_that_the_readme_writes_needs_no_server(billing):
    folder = billing.parent
    (folder / "conftest.py").write_text(ALONE)
    (folder / "pytest.ini").write_text(CONFIGURED)
    (folder / "test_billing.py").write_text(PYTHON[3])
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(folder)], cwd=folder, env=env | {"PYTHONPATH": str(folder)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


async def test_the_policies_that_the_readme_declares_hold(tmp_path, monkeypatch):
    (tmp_path / "payments.py").write_text(PYTHON[6])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "payments", raising=False)
    from payments import charge, tasks, tell_balance

    async with Rehearsal(tasks) as rehearsal:
        charged = await charge.kiq([f"order-{number}" for number in range(20)])
        told = await tell_balance.kiq("ada")
        await rehearsal.settle()
        result, answer = rehearsal.run(charged).result, rehearsal.run(told).result
    sys.modules.pop("payments")

    assert (result["total"], result["failed"], len(result["successful"])) == (20, [], 20)
    assert (answer["value"], answer["source"], answer["degraded"]) == ("yes, ada", "bank", False)


async def test_the_workflow_that_the_readme_writes_waits_for_all_that_it_says(tmp_path, monkeypatch):
    (tmp_path / "selling.py").write_text(PYTHON[7])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "selling", raising=False)
    from selling import OrderPacked, sell, tasks

    async with Rehearsal(tasks) as rehearsal:
        sold = await sell.kiq("order-17", 500)
        await rehearsal.settle()
        await rehearsal.hear(OrderPacked(order="order-17"))
        await rehearsal.settle()
        (asked,) = rehearsal.decisions()
        await rehearsal.decide(asked, approved=True)
        await rehearsal.advance(timedelta(hours=23))
        state = rehearsal.run(sold).state
        await rehearsal.advance(timedelta(hours=1))
        run = rehearsal.run(sold)
    sys.modules.pop("selling")

    assert (state, asked.name) == ("pending", "Ship order-17?")
    assert run.result == {"sold": True, "parcels": 3}


@pytest.mark.timeout(400)
def test_the_saga_that_the_readme_checks_leaves_all_or_nothing():
    checked = subprocess.run(
        block("carillon saga check").split(), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )

    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.splitlines()[-1].endswith("trials, and each left all of it or nothing.")


def test_the_compose_file_knows_what_the_readme_scales():
    commands = block("docker compose").strip().splitlines()

    compose = (ROOT / "docker-compose.yml").read_text()
    assert [line.split()[2] for line in commands] == ["up", "up", "exec"]
    for service in ("backup", "gateway"):
        assert f"\n  {service}:\n" in compose


def test_no_command_of_the_readme_is_left_out():
    executed = (
        "make run", "make test", "make tour", "tasks/scheduled", "tasks/backup/kick", "/metrics", "carillon doctor",
        "/api/v1/events", "carillon submit", "carillon stats", "carillon serve backup", "carillon audit",
        "docker compose", "carillon new", "carillon saga check",
    )  # fmt: skip

    assert all(sum(word in text for text in SHELL) == 1 for word in executed)
    assert len(SHELL) == len(executed)
    assert len(PYTHON) == 8
