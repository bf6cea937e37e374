"""A worker of one of the domains, as a real service: `python -m chaos.worker bells`."""

from __future__ import annotations

import sys

import uvloop

from carillon import Service
from carillon.settings import PlatformSettings
from chaos import mutations
from chaos.domain import belfry, tasks_of
from chaos.settings import ChaosSettings

CONCURRENCY = 10


def service(domain: str, settings: ChaosSettings) -> Service:
    """Put the worker together."""
    return Service(
        name=domain,
        settings=PlatformSettings(),
        tasks=tasks_of(domain, settings.version),
        resources=belfry(settings),
        middlewares=[mutations.RaisingMiddleware(settings)] if settings.raising_middleware else [],
        concurrency=CONCURRENCY,
    )


if __name__ == "__main__":
    told = ChaosSettings()
    mutations.apply(told)
    uvloop.run(service(sys.argv[1], told).run())
