"""What is around a new service: the project that it is written into, and the programs that are at hand."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

COMPOSE = "docker-compose.yml"
#: The image that a new service's own stands on, as Carillon's compose file builds it.
IMAGE = "carillon-workspace"


@dataclass(frozen=True)
class Surroundings:
    """Where a service is about to be."""

    name: str
    #: The service's folder, as the user spells it: relative to where they are, or whole.
    folder: Path

    @property
    def ruff(self) -> str | None:
        """The nearest project above that Ruff is configured in, as seen from the folder: its rules hold here, too."""
        return next((seen(path, self.folder) for path in self._projects if _table(path, "tool", "ruff")), None)

    @cached_property
    def workspace(self) -> Path | None:
        """The root of the uv workspace that takes this folder as a member; None where there is none."""
        for path in self._projects:
            members = _table(path, "tool", "uv", "workspace").get("members", [])
            place = self._place.relative_to(path.parent)
            if any(place.match(pattern) for pattern in members):
                return path.parent
        return None

    @cached_property
    def checkout(self) -> Path | None:
        """The folder above that has Carillon's own compose file; None where there is none."""
        for parent in self._place.parents:
            path = parent / COMPOSE
            if path.is_file() and IMAGE in path.read_text(encoding="utf-8", errors="replace"):
                return parent
        return None

    @property
    def from_compose(self) -> str:
        """The folder, as seen from where the compose file is, or else from here."""
        return seen(self.folder, self.checkout or Path.cwd())

    @property
    def context(self) -> str:
        """The same for a build, where a name without a dot or a slash before it might be taken for something else."""
        return self.from_compose if self.from_compose.startswith("..") else f"./{self.from_compose}"

    @property
    def _place(self) -> Path:
        """The folder as a whole path, without the `..` that would make parents of neighbours."""
        return self.folder.resolve()

    @property
    def _projects(self) -> list[Path]:
        paths = (parent / "pyproject.toml" for parent in self._place.parents)
        return [path for path in paths if path.is_file()]


def program(name: str) -> str:
    """How to call a program of this Python's environment from here, spelled for a shell."""
    path = Path(sys.executable).with_name(name)
    return name if shutil.which(name) == str(path) else _spelled(path)


def uv() -> str:
    """How to call uv from here, spelled for a shell: the one that `make setup` fetched, or else the one on the PATH."""
    fetched = Path(sys.prefix).parent / ".tools/bin/uv"
    return _spelled(fetched) if fetched.is_file() else "uv"


def seen(path: Path, start: Path) -> str:
    """The path as seen from `start`; neither need be there yet."""
    return Path(os.path.relpath(path.resolve(), start.resolve())).as_posix()


def _spelled(path: Path) -> str:
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def _table(path: Path, *keys: str) -> Mapping[str, Any]:
    """A table of a TOML file; empty where it is missing, or nobody can read it."""
    try:
        found: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}
