"""Notifications, assembled. `carillon serve notifications` runs it."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

from carillon import Service
from carillon.contracts import NotificationDelivered
from carillon.settings import PlatformSettings
from notifications import events  # noqa: F401 - declares what is heard
from notifications.artefacts import StoredShelf
from notifications.bodies import Clerk
from notifications.callbacks import Callbacks, CallbackSecrets
from notifications.mail import MaildirMailer, Mailer, SmtpMailer, SmtpServer
from notifications.outbound import GuardedTransport
from notifications.post_office import PostOffice
from notifications.settings import PORTS, NotificationsSettings
from notifications.store import MOST_FORGOTTEN, StoredDeliveries
from notifications.tasks import tasks
from notifications.webhooks import Poster, Webhook, checked_secrets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from taskiq import AsyncBroker

    from carillon.platform import Platform
    from carillon.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

#: Between two looks for deliveries that are old.
FORGET_SECONDS = 600.0
A_WEEK = timedelta(weeks=1)


def service() -> Service:
    """Put notifications together from its settings."""
    settings = NotificationsSettings()
    return Service(
        name="notifications",
        settings=PlatformSettings(),
        tasks=tasks,
        resources=partial(resources, settings),
        migrations="notifications.migrations",
        says=[NotificationDelivered],
        concurrency=settings.concurrency,
        port=settings.port,
        background=forgetting,
    )


async def forgetting(platform: Platform, _: Metrics, stop: asyncio.Event) -> None:
    """Delete old deliveries until told to stop: those of runs that nobody can replay any more."""
    log_, age = StoredDeliveries(platform.engine), timedelta(hours=platform.settings.task_tracking_retention_hours)
    while not stop.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(FORGET_SECONDS * random.uniform(0.5, 1.5)):  # noqa: S311 - spreads load
                await stop.wait()
        try:
            # A retry may come hours later, and has to know what arrived.
            while await log_.forget(max(age, A_WEEK)) == MOST_FORGOTTEN:
                pass
        except (OSError, SQLAlchemyError) as error:
            log.warning("old deliveries stay for now", error=repr(error))


def broker() -> AsyncBroker:
    """Return the broker for `taskiq worker notifications.app:broker`."""
    return service().broker()


@asynccontextmanager
async def resources(settings: NotificationsSettings, platform: Platform) -> AsyncIterator[Mapping[type, object]]:
    """Open what tasks need, and close it afterwards."""
    async with AsyncExitStack() as stack:
        poster = Poster(GuardedTransport(allow_private=settings.webhook_allow_private))
        stack.push_async_callback(poster.aclose)
        office = PostOffice(
            StoredDeliveries(platform.engine),
            _mailer(settings),
            _webhook(settings, poster),
            sender=settings.sender,
            recipients=settings.recipients,
        )
        clerk = Clerk(StoredShelf(platform.storage), attachment_limit=settings.attachments_max_bytes)
        callbacks = Callbacks(platform.history.run, CallbackSecrets(platform.engine), poster)
        yield {PostOffice: office, Clerk: clerk, Callbacks: callbacks}


def _mailer(settings: NotificationsSettings) -> Mailer:
    if settings.smtp_host is None:
        log.info("mail goes into a folder, no mail server is set", folder=str(settings.folder))
        return MaildirMailer(settings.folder)
    password = None if settings.smtp_password is None else settings.smtp_password.get_secret_value()
    port = settings.smtp_port or PORTS[settings.smtp_tls]
    server = SmtpServer(settings.smtp_host, port, settings.smtp_user, password, settings.smtp_tls)
    return SmtpMailer(server, settings.sender)


def _webhook(settings: NotificationsSettings, poster: Poster) -> Webhook | None:
    if settings.webhook_url is None or settings.webhook_secret is None:
        return None
    secrets = checked_secrets(settings.webhook_secret.get_secret_value())
    return Webhook(settings.webhook_url.get_secret_value(), secrets, poster)
