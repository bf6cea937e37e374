"""What `carillon new` writes fits the rules, passes its own tests and runs, by the commands that it prints."""

from __future__ import annotations

import asyncio
import configparser
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module, resources
from pathlib import Path
from typing import Self

import asyncpg
import pytest
import yaml
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from carillon.cli import new
from carillon.embedded.process import free_port
from carillon.migrations import migrate
from carillon.settings import PlatformSettings, sqlalchemy_url

pytestmark = pytest.mark.long(seconds=70)

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
#: As long as a name may be, and after every package in the alphabet.
LONGEST = "zeppelinsandballoons"
SERVERS = ("CARILLON_", "DATABASE_URL", "REDIS_URL", "RABBIT_", "STORAGE_URL", "GATEWAY_", "NOTIFICATIONS_", "BILLING_")
START_SECONDS = 60


class Made:
    """A project of somebody's own, with one new service in it."""

    def __init__(self, home: Path, name: str = "billing") -> None:
        self.home = home
        self.folder = home / name
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(SERVERS)}
        self.said = self.shell(f"{BIN}/carillon new {name}")

    def shell(self, line: str, **env: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line], cwd=self.home, env=self.env | env, capture_output=True,
            text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def install(self) -> None:
        """Do what an editable install does, without a package index: put code and entry points on the path."""
        project = tomllib.loads((self.folder / "pyproject.toml").read_text())["project"]
        name, version = project["name"], project["version"]
        info = self.home / "installed" / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        points = configparser.ConfigParser(delimiters="=")
        points.read_dict(project["entry-points"])
        with (info / "entry_points.txt").open("w") as opened:
            points.write(opened)
        self.env["PYTHONPATH"] = f"{info.parent}:{self.folder / 'src'}"


class Running:
    """A printed command that stays, until the block ends."""

    def __init__(self, project: Made, line: str, **env: str) -> None:
        self.log = project.home / "running.log"
        with self.log.open("w") as opened:
            self.process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", line], cwd=project.home, env=project.env | env, stdout=opened,
                stderr=opened, start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def said(self, words: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while words not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)  # between two looks; the deadline is above

    def __exit__(self, *_: object) -> None:
        # As Ctrl-C does: to everything that the terminal started.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(60)


def step(said: str, words: str) -> str:
    """The printed command whose comment has these words."""
    steps = re.split(r"^# ", said, flags=re.MULTILINE)
    (found,) = [text.partition("\n")[2] for text in steps if words in text.partition("\n")[0]]
    return found.strip()


def plain(said: str) -> bool:
    """Whether no comment has a character that means something to a shell which takes it for a command."""
    return all(re.fullmatch(r"# [\w ./,-]+", line) for line in said.splitlines() if line.startswith("#"))


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder / "src"))
    try:
        yield
    finally:
        sys.path.remove(str(folder / "src"))
        for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
            del sys.modules[name]


async def ask(url: str, question: str) -> list[str]:
    """The first column of what a database answers."""
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch(question)]
    finally:
        await connection.close()


ITEMS = "select name from billing.items order by name"
TABLES = "select table_name from information_schema.tables where table_schema = 'billing' order by table_name"


#: Submits the workflow, and says the event that it waits for.
FOLLOW = """
import asyncio, carillon
from billing.contracts import ItemConfirmed
from billing.workflows import follow_item, tasks
from carillon.cloudevents import Envelope

async def main():
    async with carillon.connect(tasks) as platform:
        task = await follow_item.kiq("the second")
        await platform.say(Envelope.of(ItemConfirmed(item="the second"), source="/shop"), actor="shop")
        print((await task.wait_result(timeout=60)).return_value)

asyncio.run(main())
"""


@pytest.fixture(scope="module", params=["billing", LONGEST])
def any_made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("project"), request.param)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    project = Made(tmp_path_factory.mktemp("project"))
    project.install()
    return project


@pytest.mark.parametrize(
    "check",
    [
        "ruff check",
        "ruff format --check",
        f"ruff check --config {ROOT}/pyproject.toml --config 'src=[\"src\"]'",
        f"ruff format --check --config {ROOT}/pyproject.toml",
    ],
    ids=["check", "format", "check-as-we-do", "format-as-we-do"],
)
def test_what_is_written_passes_ruff_by_its_own_rules_and_by_ours(any_made: Made, check: str) -> None:
    assert list(any_made.folder.rglob("*.py")) != []

    any_made.shell(f"cd {any_made.folder} && {BIN}/{check} .")


def test_what_is_written_passes_mypy_as_strict_as_ours(made: Made) -> None:
    # Kept from one session to the next: what it depends on takes half a minute to read.
    said = made.shell(f"cd {made.folder} && {BIN}/mypy", MYPY_CACHE_DIR=str(ROOT / ".mypy_cache/newdomain"))

    assert re.search(r"no issues found in \d\d source files", said)


def test_what_is_printed_can_be_pasted_with_its_comments(made: Made) -> None:
    assert plain(made.said)


def test_no_placeholder_is_left(any_made: Made) -> None:
    texts = {path: path.read_text(errors="replace") for path in any_made.folder.rglob("*") if path.is_file()}

    left = re.compile(r"__(?:domain|folder|context|extend)__", re.IGNORECASE)
    assert [path for path, text in texts.items() if left.search(f"{path}{text}")] == []


def test_its_own_tests_pass_at_once(made: Made, database_url: str) -> None:
    said = made.shell(step(made.said, "Test it"), PYTHONPATH="", DATABASE_URL=database_url)

    assert re.search(r"=+ \d+ passed in", said)


async def moved(url: str, how: Callable[[Config, str], None], to: str) -> list[str]:
    """Move the schema to a version, and say which tables it has then."""

    def move(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(resources.files("billing.migrations")))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        how(config, to)

    engine = create_async_engine(sqlalchemy_url(url))
    async with engine.connect() as connection:
        await connection.run_sync(move)
        await connection.commit()
    await engine.dispose()
    return await ask(url, TABLES)


async def test_its_migration_goes_up_and_down_and_up_again(made: Made, new_database: Callable[[], str]) -> None:
    url = new_database()

    with importable(made.folder):
        await migrate(url, "billing.migrations")
        up = await ask(url, TABLES)
        down = await moved(url, command.downgrade, "base")
        again = await moved(url, command.upgrade, "head")

    assert (up, down, again) == (["alembic_version", "items"], ["alembic_version"], up)


def test_with_everything_else_it_is_run_and_submitted_to_as_printed(
    made: Made, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    place = {"CARILLON_HOME": str(tmp_path), "CARILLON_PORT": str(free_port())}
    env = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, **place}

    with Running(made, f"exec {step(made.said, 'Run it')}", **env) as up:
        up.said("Carillon is up")
        said = made.shell(step(made.said, "Submit to it"), **env)

    assert '"item":"the first"' in said
    assert asyncio.run(ask(database_url, ITEMS)) == ["the first"]
    assert up.process.returncode == 0


def test_where_there_is_no_gateway_it_is_run_and_submitted_to_as_printed(
    made: Made, new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
) -> None:
    monkeypatch.setattr("carillon.cli.installed.names", list)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.chdir(made.home)
    assert new.run("billing", tmp_path) == 0
    said, url = capsys.readouterr().out, new_database()
    assert plain(said)
    named = re.sub(r"(?<=DATABASE_URL=)\S+$", url, step(said, "where your PostgreSQL is"))

    with Running(made, f"{named}\n{step(said, 'Run it')}") as served:
        served.said("worker started")
        printed = made.shell(f"{named}\n{step(said, 'Submit to it')}")

        followed = made.shell(f"{named}\n{BIN}/python - <<'END'\n{FOLLOW}END")

    assert "'item': 'the first'" in printed
    assert "'outcome': 'confirmed'" in followed
    assert asyncio.run(ask(url, ITEMS)) == ["the first", "the second"]
    assert served.process.returncode == 0


def checkout(folder: Path) -> Path:
    """A folder with what a new service looks for in a checkout of ours."""
    for name in ("pyproject.toml", "docker-compose.yml"):
        (folder / name).write_text((ROOT / name).read_text())
    (folder / "services").mkdir()
    return folder


def test_its_compose_file_fits_beside_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(checkout(tmp_path))
    assert new.run("billing", Path()) == 0
    files = "docker-compose.yml", "billing/compose.yml"
    ours, its = (yaml.safe_load(Path(name).read_text())["services"] for name in files)
    with importable(tmp_path / "billing"):
        settings = import_module("billing.settings").BillingSettings

    read = {f"billing_{name}" for name in settings.model_fields} | set(PlatformSettings.model_fields)
    assert not set(ours) & set(its)
    for container in its.values():
        assert set(container["depends_on"]) <= set(ours) | set(its)
        assert {name.lower() for name in container["environment"]} <= read
        assert Path(container["build"]["context"], "Dockerfile").is_file()
    assert its["billing"]["healthcheck"]["test"] == ours["backup"]["healthcheck"]["test"]
    assert its["billing"]["environment"]["CARILLON_HOST"] == ours["backup"]["environment"]["CARILLON_HOST"]
    assert "-f docker-compose.yml -f billing/compose.yml up" in step(capsys.readouterr().out, "containers")


def test_among_our_services_it_is_a_member_of_the_workspace_and_our_rules_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(checkout(tmp_path))
    assert new.run("billing", Path("services")) == 0

    said = capsys.readouterr().out
    install = step(said, "member of this workspace")
    project = tomllib.loads(Path("services/billing/pyproject.toml").read_text())
    compose = yaml.safe_load(Path("services/billing/compose.yml").read_text())
    linted = subprocess.run([BIN / "ruff", "check", "."], capture_output=True, text=True, check=False, timeout=60)
    assert re.search(r"uv lock --project \. && \S*uv sync --project \. --all-packages$", install)
    assert project["tool"]["ruff"]["extend"] == "../../pyproject.toml"
    assert compose["services"]["billing"]["build"]["context"] == "./services/billing"
    assert linted.returncode == 0, linted.stdout
    # Our image would not build before it knows the new member.
    assert "docker compose" not in said
    assert "has to be named to mypy" in said
    assert plain(said)
