"""Runs one service as this process; `python -m carillon.cli.serve NAME` does so without loading the command line."""

from __future__ import annotations

import sys

import uvloop

from carillon.cli import installed
from carillon.cli.exits import in_one_sentence


def run(name: str) -> int:
    """Run the service until it is told to stop."""
    return in_one_sentence(lambda: _serve(name))


def _serve(name: str) -> int:
    uvloop.run(installed.load(name).run())
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1]))
