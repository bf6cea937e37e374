"""Who runs PostgreSQL, which refuses to be root, and where its files may lie so that this user reaches them."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from carillon.embedded.errors import EmbeddedServerError

#: Where data goes when only root can enter the state folder. Both survive a restart of the machine.
SHARED_PLACES = (Path("/var/lib/carillon"), Path("/var/tmp/carillon"))  # noqa: S108 - made by root, 0711, checked for its owner


@dataclass(frozen=True)
class Account:
    """A user of this machine, as numbers."""

    uid: int
    gid: int

    def can_enter(self, folder: Path) -> bool:
        """Whether this user may pass through `folder` and everything above it."""
        resolved = folder.resolve()
        return all(self._may_pass(place) for place in (resolved, *resolved.parents))

    def _may_pass(self, folder: Path) -> bool:
        try:
            status = folder.stat()
        except FileNotFoundError:
            return True
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


def server_account() -> Account | None:
    """The account that runs PostgreSQL: None is this process's own, root hands over to `nobody`."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        message = "PostgreSQL may not run as root and this machine has no user `nobody`; run as a normal user."
        raise EmbeddedServerError(message) from None
    return Account(nobody.pw_uid, nobody.pw_gid)


def shared_place() -> Path:
    """A folder of root's that every user may enter, for what cannot lie in the state folder."""
    for place in SHARED_PLACES:
        try:
            place.mkdir(mode=0o711, parents=True, exist_ok=True)
            status = place.lstat()
        except OSError:
            continue
        # In /var/tmp somebody else may have made the name first.
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and os.access(place, os.W_OK):
            place.chmod(0o711)
            return place
    tried = " and ".join(str(place) for place in SHARED_PLACES)
    message = (
        f"PostgreSQL may not run as root and {tried} cannot be written; run as a normal user or set CARILLON_HOME."
    )
    raise EmbeddedServerError(message)
