"""A script that becomes a server: gives up root where asked, binds its life to its parent's, executes the command.

Run as `python -I -S guard.py PARENT_PID DEATH_SIGNAL UID GID COMMAND...`, with `-` for a UID that stays. It is a
program of its own because the kernel forgets the death signal when credentials change, and because code between fork
and exec is not safe beside threads.
"""

from __future__ import annotations

import ctypes
import os
import sys

#: From <linux/prctl.h>: which signal this process gets when the thread that started it ends.
PR_SET_PDEATHSIG = 1


def main(parent: str, death_signal: str, uid: str, gid: str, *command: str) -> None:
    """Turn this process into `command`."""
    if uid != "-":
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the process that asked for this server has ended")
    os.execv(command[0], command)  # noqa: S606 - this is what the script is for


if __name__ == "__main__":
    main(*sys.argv[1:])
