"""Processor seconds of processes, read from /proc: of one, and of the servers, whoever started them."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def seconds_of(pid: int) -> float:
    """What a process has used so far, and what its ended children have."""
    return sum(_fields(Path(f"/proc/{pid}"))[11:15]) / _TICKS


def seconds_of_servers() -> dict[str, float]:
    """What the broker and PostgreSQL have used so far; whoever else uses them meanwhile is counted as well."""
    used = {"rabbitmq": 0.0, "postgresql": 0.0}
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            name = (process / "comm").read_text().strip()
            fields = _fields(process)
        except OSError:
            continue
        # The postmaster's children end with their connections; what they used is the postmaster's then.
        if name == "beam.smp":
            used["rabbitmq"] += sum(fields[11:13]) / _TICKS
        elif name == "postgres":
            used["postgresql"] += sum(fields[11:15]) / _TICKS
    return used


def _fields(process: Path) -> list[int]:
    """The numbers of `stat`, by the places that proc(5) gives them, counted from the state; -1 where there is none."""
    after_name = (process / "stat").read_text().rpartition(")")[2].split()
    return [int(field) if field.lstrip("-").isdecimal() else -1 for field in after_name]
