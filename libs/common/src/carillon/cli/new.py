"""`carillon new`: writes a service of one's own, whole and small, and says what to do with it."""

from __future__ import annotations

import keyword
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path

from carillon.cli import installed
from carillon.cli.exits import OK, MistypedError, in_one_sentence
from carillon.cli.first_steps import first_steps
from carillon.cli.surroundings import Surroundings
from carillon.errors import CarillonError
from carillon.settings import PlatformSettings

#: A word that is a package, a schema, the start of variables and a part of queue names, all at once.
ONE_WORD = re.compile(r"[a-z][a-z0-9]{1,19}")
#: Schemas that PostgreSQL has already.
SCHEMAS = frozenset({"public"})
SUFFIX = ".tmpl"


class OccupiedError(CarillonError):
    """Something is there already, and nothing is ever written over."""


def run(name: str, into: Path) -> int:
    """Write the service `name` into a folder of its name below `into`, and print what was written and what comes next.

    Ends with 2 for a name that cannot be, and with 1 where there is something already.
    """
    return in_one_sentence(lambda: _new(name, into))


def _new(name: str, into: Path) -> int:
    _check(name)
    if not into.is_dir():
        message = f"There is no folder {into} to write into; make it first, or name another with --into."
        raise MistypedError(message)
    around = Surroundings(name, into / name)
    written = dict(_rendered(around))
    _write(around.folder, written)
    sys.stdout.write(f"{_told(around, written)}\n{first_steps(around)}\n")
    return OK


def _check(name: str) -> None:
    """Raise `MistypedError` for a name that cannot be a service's."""
    if not ONE_WORD.fullmatch(name):
        fault = "is none: a service is one lower-case word of 2 to 20 letters and digits"
    elif keyword.iskeyword(name) or name in sys.stdlib_module_names:
        fault = "is Python's own word"
    elif name in installed.names():
        fault = "is a service that is installed here"
    elif any(setting.startswith(f"{name}_") for setting in PlatformSettings.model_fields) or name in SCHEMAS:
        fault = "is a word that the platform's own variables or schemas have"
    elif find_spec(name) is not None:
        fault = "is a package that is installed here, which could then not be imported"
    else:
        return
    message = f"{name!r} cannot be the name of a service, because it {fault}; choose another, such as billing."
    raise MistypedError(message)


def _rendered(around: Surroundings) -> Iterator[tuple[Path, str]]:
    """Each file of the service, by its path below the service's folder."""
    words = {
        "__domain__": around.name,
        "__Domain__": around.name.capitalize(),
        "__DOMAIN__": around.name.upper(),
        "__folder__": around.from_compose,
        "__context__": around.context,
        "__extend__": f'extend = "{around.ruff}"\n' if around.ruff else "",
    }
    for path, template in _templates(files("carillon.cli") / "domain"):
        yield Path(_put_in(path, words)), _put_in(template.read_text(encoding="utf-8"), words)


def _templates(folder: Traversable, below: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _templates(entry, f"{below}{entry.name}/")
        elif entry.name.endswith(SUFFIX):
            yield below + entry.name.removesuffix(SUFFIX), entry


def _put_in(text: str, words: Mapping[str, str]) -> str:
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    return text


def _write(folder: Path, written: Mapping[Path, str]) -> None:
    """Make the folder with everything in it, or leave nothing; raises `OccupiedError` where there is one."""
    try:
        folder.mkdir()
    except FileExistsError:
        message = f"There is a {folder} already, and nothing is written over; choose another name, or another --into."
        raise OccupiedError(message) from None
    try:
        for path, text in written.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _told(around: Surroundings, written: Mapping[Path, str]) -> str:
    """What was written, a line for each folder."""
    folders: dict[str, list[str]] = {}
    for path in written:
        folders.setdefault(f"{path.parent}/", []).append(path.name)
    width = max(map(len, folders))
    lines = [f"  {folder:{width}}  {' '.join(sorted(names))}" for folder, names in sorted(folders.items())]
    return "\n".join([f"{around.folder}/ is a service now:", *lines, ""])
