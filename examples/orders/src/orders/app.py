"""Orders, assembled. `carillon serve orders` runs it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from carillon import Service
from carillon.settings import PlatformSettings
from orders import workflows  # noqa: F401 - declares them
from orders.partners import Carrier, Directory, PlayedPartners
from orders.payments import Payments
from orders.settings import OrdersSettings
from orders.store import Store, TableBank
from orders.tasks import tasks
from orders.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from taskiq import AsyncBroker

    from carillon.platform import Platform


def service() -> Service:
    """Put orders together from its settings."""
    settings = OrdersSettings()
    return Service(
        name="orders",
        settings=PlatformSettings(),
        tasks=tasks,
        resources=partial(resources, settings),
        migrations="orders.migrations",
        concurrency=settings.concurrency,
        port=settings.port,
    )


def broker() -> AsyncBroker:
    """Return the broker for `taskiq worker orders.app:broker`."""
    return service().broker()


@asynccontextmanager
async def resources(settings: OrdersSettings, platform: Platform) -> AsyncIterator[Mapping[type, object]]:
    """Provide what tasks need. Bank, carrier and directory are played; a shop of yours would connect to its own."""
    store = Store(platform.engine)
    partners = PlayedPartners(name.strip() for name in settings.away.split(","))
    payments = Payments(TableBank(platform.engine), store)
    yield {Warehouse: store, Payments: payments, Carrier: partners, Directory: partners}
