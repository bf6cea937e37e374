"""Which services are installed here. They say so themselves, by the entry point group `carillon.services`.

An example says so by the group `carillon.examples`: it counts where CARILLON_EXAMPLES names it, and else is not run,
migrated or examined unless somebody names it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from carillon.errors import ConfigurationError

if TYPE_CHECKING:
    # Loading it costs 70 MB, which `carillon up` holds as long as the platform runs.
    from carillon.service import Service

GROUP = "carillon.services"
EXAMPLES = "carillon.examples"
#: The examples that are wanted, parted by commas.
WANTED = "CARILLON_EXAMPLES"


def names() -> list[str]:
    """The words of the installed services, and of the examples that are wanted, sorted.

    Raises `ConfigurationError` for an example that is not installed.
    """
    wanted = {name.strip() for name in os.environ.get(WANTED, "").split(",")} - {""}
    if unknown := wanted - _found(EXAMPLES).keys():
        there = ", ".join(sorted(_found(EXAMPLES))) or "none"
        message = f"{WANTED} names {', '.join(sorted(unknown))}, and the examples installed are: {there}."
        raise ConfigurationError(message)
    return sorted(_found(GROUP).keys() | wanted)


def load(name: str) -> Service:
    """Build one service; raises `ConfigurationError` when it is not installed or its settings are wrong."""
    found = _found(EXAMPLES) | _found(GROUP)
    if name not in found:
        there = ", ".join(sorted(found)) or "none"
        message = f"There is no service `{name}` here; installed are: {there}."
        raise ConfigurationError(message)
    factory: Callable[[], Service] = found[name].load()
    return factory()


def _found(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}
