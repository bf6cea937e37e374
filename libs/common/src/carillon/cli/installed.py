"""Which services are installed here. They say so themselves, by the entry point group `carillon.services`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from carillon.errors import ConfigurationError

if TYPE_CHECKING:
    # Loading it costs 70 MB, which `carillon up` holds as long as the platform runs.
    from carillon.service import Service

GROUP = "carillon.services"


def names() -> list[str]:
    """The words of the installed services, sorted."""
    return sorted(_found())


def load(name: str) -> Service:
    """Build one service; raises `ConfigurationError` when it is not installed or its settings are wrong."""
    found = _found()
    if name not in found:
        there = ", ".join(sorted(found)) or "none"
        message = f"There is no service `{name}` here; installed are: {there}."
        raise ConfigurationError(message)
    factory: Callable[[], Service] = found[name].load()
    return factory()


def _found() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
