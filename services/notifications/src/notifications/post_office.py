"""Takes a message to its destinations: each once, each with its own outcome."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from carillon.errors import PermanentError, TransientError
from notifications.deliveries import Cause, Delivery, DeliveryLog, Parcel
from notifications.letters import Letter, checked_address, checked_header, compose

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from notifications.mail import Envelope, Mailer
    from notifications.webhooks import Webhook


class PostOffice:
    """Sends what was not delivered yet, and remembers what was."""

    def __init__(
        self,
        log: DeliveryLog,
        mailer: Mailer,
        webhook: Webhook | None,
        *,
        sender: str,
        recipients: Sequence[str],
    ) -> None:
        self._log = log
        self._mailer = mailer
        self._webhook = webhook
        self._sender = checked_address(sender)
        self._recipients = [checked_address(recipient) for recipient in recipients]

    async def mail(self, letter: Letter, cause: Cause, to: Sequence[str] | None = None) -> list[Delivery]:
        """Mail a letter to each recipient (the configured ones unless `to` names others); return every delivery."""
        checked_header(letter.subject)
        recipients = [checked_address(recipient) for recipient in to or self._recipients]
        outcomes = []
        for envelope in self._mailer.envelopes(recipients):
            parcel = Parcel(cause, self._mailer.channel, envelope.destination, letter.subject)
            outcomes.append(await self._deliver(parcel, partial(self._mail_one, letter, envelope)))
        return _settled(outcomes)

    async def post(self, subject: str, payload: bytes, cause: Cause) -> list[Delivery]:
        """Post a webhook; return its delivery, or nothing where no webhook is set."""
        return [] if self._webhook is None else await self.post_to(self._webhook, subject, payload, cause)

    async def post_to(self, webhook: Webhook, subject: str, payload: bytes, cause: Cause) -> list[Delivery]:
        """Post a webhook to this receiver; return its delivery."""
        parcel = Parcel(cause, "webhook", webhook.destination, subject)
        return _settled([await self._deliver(parcel, partial(self._post_one, webhook, payload))])

    async def _mail_one(self, letter: Letter, envelope: Envelope, delivery: Delivery) -> None:
        message = compose(
            letter,
            sender=self._sender,
            recipients=envelope.recipients,
            delivery=delivery.parcel.id,
            written=delivery.created_at,
        )
        await self._mailer.send(message, envelope, delivery.parcel.id)

    async def _post_one(self, webhook: Webhook, payload: bytes, delivery: Delivery) -> None:
        await webhook.post(payload, delivery.parcel.id)

    async def _deliver(
        self, parcel: Parcel, send: Callable[[Delivery], Awaitable[None]]
    ) -> tuple[Delivery, PermanentError | TransientError | None]:
        """Send one parcel unless it arrived before; a failure is recorded and returned, for the others go on."""
        delivery = await self._log.begin(parcel)
        if delivery.state == "delivered":
            return delivery, None
        try:
            await send(delivery)
        except TransientError as error:
            return await self._log.end(parcel, "deferred", str(error)), error
        except PermanentError as error:
            return await self._log.end(parcel, "refused", str(error)), error
        return await self._log.end(parcel, "delivered"), None


def _settled(outcomes: list[tuple[Delivery, PermanentError | TransientError | None]]) -> list[Delivery]:
    """Raise if anything is worth another attempt, or if nothing arrived; else return what became of each."""
    errors = [error for _, error in outcomes if error is not None]
    later = [error for error in errors if isinstance(error, TransientError)]
    if later:
        raise later[0]
    if errors and len(errors) == len(outcomes):
        raise errors[0]
    return [delivery for delivery, _ in outcomes]
