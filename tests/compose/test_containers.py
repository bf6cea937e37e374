"""The container commands of both READMEs, executed word by word and in their order; `make test-compose` runs this."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

#: The first test builds seven images, and pulls four where they are not there.
BUILD_SECONDS = 1500
COMMAND_SECONDS = 240
pytestmark = [pytest.mark.compose, pytest.mark.timeout(BUILD_SECONDS + 2 * COMMAND_SECONDS)]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEPLOY = (ROOT / "deploy/README.md").read_text(encoding="utf-8")
OURS = sorted(path.parent.name for path in ROOT.glob("services/*/pyproject.toml"))
STAYING = sorted([*OURS, "postgres", "rabbitmq", "redis"])
NEEDED = ["docker-compose.yml", ".dockerignore", "pyproject.toml", "uv.lock", "deploy", "libs", "services", "examples"]
NO_ENGINE = "no container engine with Compose answers; start docker, and run `make test-compose` again"


def commands(text: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]


def the(*words: str, of: str = DEPLOY) -> str:
    (found,) = [line for line in commands(of) if all(word in line for word in words)]
    return found


UP, SCALE, TOUR = [line for line in commands(README) if line.startswith("docker compose")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Project:
    """A copy of the sources under a name of its own, and a shell in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"carillon-test-{secrets.token_hex(4)}"
        self.port = free_port()
        own = ("BACKUP_", "CARILLON_", "COMPOSE_", "NOTIFICATIONS_", "OTEL_", "POSTGRES_", "RABBIT_")
        self._env = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        self._env |= {"COMPOSE_PROJECT_NAME": self.name, "CARILLON_PORT": str(self.port), "CARILLON_VERSION": self.name}
        for name in NEEDED:
            if (source := ROOT / name).is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".venv"))
            else:
                shutil.copy(source, folder / name)

    def shell(self, line: str, *, within: float = COMMAND_SECONDS) -> str:
        code, said = self.attempt(line, within=within)
        assert code == 0, f"{line}\n{said[-6000:]}"
        return said

    def attempt(self, line: str, *, within: float = COMMAND_SECONDS) -> tuple[int, str]:
        here = line.replace("http://127.0.0.1:8000/health", f"http://127.0.0.1:{self.port}/health")
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", here], cwd=self.folder, env=self._env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            said, _ = process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            # The group: docker's own children would otherwise hold the pipe, and us.
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
            pytest.fail(f"`{line}` did not end within {within:g} s; it said: {said[-3000:]}", pytrace=False)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, said

    def containers(self) -> list[dict[str, Any]]:
        ids = self._of_project("ps --all")
        return json.loads(self.shell(f"docker inspect {' '.join(ids)}")) if ids else []

    def staying(self) -> dict[str, list[str]]:
        """The ids of the containers of each service that is to stay up."""
        ids: dict[str, list[str]] = {name: [] for name in STAYING}
        for container in self.containers():
            name = container["Config"]["Labels"]["com.docker.compose.service"]
            if name in ids and container["State"]["Status"] == "running":
                ids[name].append(container["Id"])
        return {name: sorted(found) for name, found in ids.items()}

    def health(self) -> dict[str, set[str]]:
        """The states of health of each service."""
        states: dict[str, set[str]] = {}
        for container in self.containers():
            name = container["Config"]["Labels"]["com.docker.compose.service"]
            state = container["State"]
            said = state["Health"]["Status"] if "Health" in state else f"{state['Status']} {state['ExitCode']}"
            states.setdefault(name, set()).add(said)
        return states

    def leftovers(self) -> dict[str, list[str]]:
        return {kind: self._of_project(kind) for kind in ("ps --all", "volume ls", "network ls")}

    def remove(self) -> None:
        """Leave nothing behind; the engine keeps what it cached for the next build."""
        self.attempt("docker compose down --volumes --remove-orphans --timeout 5")
        if images := self._of_project("image ls"):
            self.attempt(f"docker image rm --force {' '.join(images)}")

    def _of_project(self, kind: str) -> list[str]:
        return self.shell(f"docker {kind} --quiet --filter label=com.docker.compose.project={self.name}").split()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    made = Project(tmp_path_factory.mktemp("containers"))
    code, _ = made.attempt("docker info && docker compose version", within=60)
    if code != 0:
        pytest.fail(NO_ENGINE, pytrace=False)
    try:
        made.shell(UP, within=BUILD_SECONDS)
        yield made
    finally:
        made.remove()


def test_all_services_are_healthy_when_the_first_command_ends(project):
    assert project.health() == {name: {"healthy"} for name in STAYING} | {"migrate": {"exited 0"}}
    assert "ready" in project.shell(the("curl", "health/ready"))
    assert project.shell(the("cat", "api-key")).strip()


def test_three_backups_run_beside_the_others_which_are_not_touched(project):
    before = project.staying()
    project.shell(SCALE)
    project.shell(the("--scale", "--wait"))
    after = project.staying()

    assert len(after["backup"]) == 3
    assert set(before["backup"]) <= set(after["backup"])
    assert {name: after[name] for name in STAYING if name != "backup"} == {
        name: before[name] for name in STAYING if name != "backup"
    }
    assert project.health()["backup"] == {"healthy"}


def test_the_tour_inside_shows_the_chain_done_and_its_mail_lies_in_the_volume(project):
    said = project.shell(TOUR)
    mails = project.shell(the("ls", "mail/sent/new"))

    shown = re.findall(r"^done +(\S+)", README, re.MULTILINE)
    assert len(shown) == 5
    assert set(shown) <= set(re.findall(r"^\s*done +(\S+)", said, re.MULTILINE)), said
    assert mails.strip()
    assert the("carillon tour") == TOUR


def test_a_new_build_of_one_service_replaces_that_service_alone(project):
    before = project.staying()
    with (project.folder / "services/reports/src/reports/app.py").open("a") as code:
        code.write("\n# a new build\n")
    project.shell(the("--no-deps", "--wait reports"), within=BUILD_SECONDS)
    project.shell(the("--no-deps reports carillon migrate"))
    after = project.staying()

    assert set(before["reports"]).isdisjoint(after["reports"])
    assert len(after["reports"]) == 1
    assert {name for name in STAYING if before[name] != after[name]} == {"reports"}
    assert project.health()["reports"] == {"healthy"}


def test_a_service_tells_its_figures_inside(project):
    assert "process_cpu_seconds_total" in project.shell(the("reports python -c"))


def test_the_doctor_finds_everything_well(project):
    assert "Everything is well" in project.shell(the("carillon doctor"))


def test_the_gateway_is_reached_from_this_machine(project):
    with urllib.request.urlopen(f"http://127.0.0.1:{project.port}/", timeout=20) as page:
        assert page.status == 200


def test_down_with_volumes_removes_everything(project):
    assert "`docker compose down`" in DEPLOY
    project.shell("docker compose down --volumes")

    assert project.leftovers() == {"ps --all": [], "volume ls": [], "network ls": []}
