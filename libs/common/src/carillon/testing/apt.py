"""Installing what tests need, where that takes no question: as root, on Debian and what descends from it."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALL_SECONDS = 600.0
#: What invoke-rc.d is told while a package installs: start nothing.
POLICY = Path("/usr/sbin/policy-rc.d")


class AptError(Exception):
    """A package could not be installed; the sentence says what apt-get said."""


def may_install() -> bool:
    """Whether apt-get is here and would do what we say."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None


def install(*packages: str) -> None:
    """Install packages and what they need, without starting their services; raises `AptError`."""
    with _services_kept_stopped():
        _apt("-qq", "update")
        _apt("-qq", "-y", "--no-install-recommends", "install", *packages)


def _apt(*arguments: str) -> None:
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        ["/usr/bin/apt-get", "-o", "Acquire::Retries=3", *arguments],
        capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS, env=env, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        raise AptError(done.stderr.strip()[-500:])


@contextmanager
def _services_kept_stopped() -> Iterator[None]:
    """Let a package install without its service being started; a policy that is there already is left alone."""
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            POLICY.unlink(missing_ok=True)
