"""The Chromium that tests look at pages with: one that is installed, else a plain sentence on how to get one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from carillon.testing import apt

if TYPE_CHECKING:
    from collections.abc import Callable

#: A browser that has not shown a page within this many seconds counts as absent.
PROBE_SECONDS = 60.0
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WORD = "carillon"
#: The second is of the program that playwright drives a browser with, and small systems lack it.
PACKAGES = ("chromium", "libatomic1")
MISSING = (
    f"no Chromium could be had; install chromium (Debian: `sudo apt-get install {' '.join(PACKAGES)}`; Ubuntu, where "
    "that package needs snapd: Google's google-chrome-stable; macOS: put a `chromium` that starts it on PATH)"
)


class Chromium:
    """The Chromium of one test session; nothing is looked for before the first question."""

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        self._say = say
        self._program: str | None = None
        self._broken: list[str] = []
        #: Why there is none, once that is known.
        self.missing: str | None = None

    def find(self) -> str | None:
        """The path of a program that shows pages, or None, and then `missing` says why."""
        if self._program is None and self.missing is None:
            self._program = self._installed() or self._bought()
            if self._program is None:
                self.missing = f"{self._broken[-1]}; {MISSING}" if self._broken else MISSING
        return self._program

    def hand_over(self) -> dict[str, Any]:
        """What was found, for `take_over` in another process of this session."""
        return {"program": self._program, "missing": self.missing}

    def take_over(self, found: dict[str, Any]) -> None:
        """Use what another process found; it is neither tried nor installed again."""
        self._program, self.missing = found["program"], found["missing"]

    def stop(self) -> None:
        """Nothing of ours runs."""

    def _installed(self) -> str | None:
        self._broken.clear()
        for program in filter(None, map(shutil.which, PROGRAMS)):
            # A package may be there and only tell people to install another one, as Ubuntu's is.
            if (complaint := _complaint(program)) is not None:
                self._broken.append(f"{program} shows no page ({complaint})")
            elif (complaint := _driver_complaint()) is not None:
                self._broken.append(f"playwright does not start ({complaint})")
            else:
                return program
        return None

    def _bought(self) -> str | None:
        if not apt.may_install():
            return None
        self._say("installing chromium for the tests (apt-get, about a minute) ...")
        try:
            apt.install(*PACKAGES)
        except (apt.AptError, OSError, subprocess.SubprocessError) as error:
            self._say(f"Chromium for the tests, tried and failed: apt-get: {error}")
            return None
        return self._installed()


def flags() -> list[str]:
    """How a Chromium is started that asks nobody but the page that it is shown."""
    quiet = [
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    # Chromium's sandbox refuses to be set up by root.
    return ["--no-sandbox", *quiet] if os.geteuid() == 0 else quiet


def _driver_complaint() -> str | None:
    """What keeps playwright from driving a browser, or None when it can, or is not installed and so not asked."""
    if find_spec("playwright") is None:
        return None
    command = [sys.executable, "-m", "playwright", "--version"]
    asked = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PROBE_SECONDS, stdin=subprocess.DEVNULL
    )
    return None if asked.returncode == 0 else _last_words(asked)


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    said = (done.stderr or done.stdout).strip().splitlines()
    return said[-1][:200] if said else f"it ended with {done.returncode}"


def _complaint(program: str) -> str | None:
    """What keeps a program from showing a page, or None when it shows one."""
    with tempfile.TemporaryDirectory(prefix="carillon-chromium-", ignore_cleanup_errors=True) as profile:
        page = ["--dump-dom", f"data:text/html,<p>{WORD}</p>"]
        command = [program, "--headless", *flags(), f"--user-data-dir={profile}", *page]
        try:
            shown = subprocess.run(
                command, capture_output=True, text=True, errors="replace", check=False, timeout=PROBE_SECONDS,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"not within {PROBE_SECONDS:g} s"
        except OSError as error:
            return str(error)
    if f"<p>{WORD}</p>" in shown.stdout:
        return None
    return _last_words(shown)
