"""Which machine and which versions the figures belong to."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("aio-pika", "asyncpg", "sqlalchemy", "taskiq", "opentelemetry-sdk", "prometheus-client", "uvloop")


def machine() -> dict[str, str | int | float]:
    """Processor, cores, memory and system, in the words of a table."""
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """Python and the packages that carry Carillon's runs."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _field(file: Path, name: str) -> str | None:
    if not file.exists():
        return None
    lines = file.read_text("utf-8", errors="replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)
