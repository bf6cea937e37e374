"""Each message reaches each destination once, whatever fails beside it; the log's two kinds agree."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from notifications.deliveries import Cause, DeliveryLog, Parcel, RememberedDeliveries
from notifications.errors import MailDeferredError, MailRefusedError, UnsafeHeaderError, WebhookUnavailableError
from notifications.letters import Letter
from notifications.mail import SmtpMailer, SmtpServer
from notifications.outbound import GuardedTransport
from notifications.post_office import PostOffice
from notifications.store import StoredDeliveries
from notifications.webhooks import Poster, Webhook, payload_of

if TYPE_CHECKING:
    from conftest import MailServer, Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CAUSE = Cause("018f0000-0000-7000-8000-00000000000a", "reports.report_rendered.v1")
LETTER = Letter("Operations", "all well")
ANN, BOB = "ann@example.org", "bob@example.org"


@pytest.fixture(params=["remembered", "stored"])
def log(request: pytest.FixtureRequest) -> DeliveryLog:
    if request.param == "remembered":
        return RememberedDeliveries()
    return StoredDeliveries(request.getfixturevalue("engine"))


@pytest.fixture
async def office(engine: AsyncEngine, mail_server: MailServer, receiver: Receiver) -> AsyncIterator[PostOffice]:
    poster = Poster(GuardedTransport(allow_private=True))
    mailer = SmtpMailer(SmtpServer("127.0.0.1", mail_server.port, None, None, "none"), "carillon@example.org")
    yield PostOffice(
        StoredDeliveries(engine),
        mailer,
        Webhook(receiver.url, [SECRET], poster),
        sender="carillon@example.org",
        recipients=[ANN, BOB],
    )
    await poster.aclose()


async def test_old_deliveries_are_forgotten_and_new_ones_stay(engine: AsyncEngine) -> None:
    log = StoredDeliveries(engine)
    old, new = (Parcel(Cause(name, "a.test.v1"), "email", ANN, "x") for name in ("old", "new"))
    for parcel in (old, new):
        await log.begin(parcel)
        await log.end(parcel, "delivered")
    async with engine.begin() as connection:
        await connection.execute(
            text("update notifications.deliveries set updated_at = now() - interval '8 days' where cause = 'old'")
        )

    assert await log.forget(timedelta(days=7)) == 1

    assert [(await log.begin(parcel)).state for parcel in (old, new)] == ["pending", "delivered"]


async def test_sending_twice_delivers_once(office: PostOffice, mail_server: MailServer) -> None:
    first = await office.mail(LETTER, CAUSE)
    second = await office.mail(LETTER, CAUSE)

    assert mail_server.recipients == [ANN, BOB]
    assert first == second
    assert [delivery.state for delivery in second] == ["delivered", "delivered"]


async def test_a_deferred_recipient_is_tried_again_and_the_others_are_not(
    office: PostOffice, mail_server: MailServer
) -> None:
    mail_server.answers[ANN] = ["451 greylisted"]

    with pytest.raises(MailDeferredError, match="451"):
        await office.mail(LETTER, CAUSE)
    deliveries = await office.mail(LETTER, CAUSE)

    assert mail_server.recipients == [BOB, ANN]
    assert [(delivery.parcel.destination, delivery.attempts) for delivery in deliveries] == [(ANN, 2), (BOB, 1)]


async def test_a_refused_recipient_is_recorded_and_the_others_are_served(
    office: PostOffice, mail_server: MailServer
) -> None:
    mail_server.answers[ANN] = ["550 no such mailbox"]

    ann, bob = await office.mail(LETTER, CAUSE)

    assert (ann.state, bob.state) == ("refused", "delivered")
    assert ann.error == "the mail server answered 550 no such mailbox"


async def test_a_message_that_everybody_refuses_fails_for_good(office: PostOffice, mail_server: MailServer) -> None:
    mail_server.answers = {ANN: ["550 no"], BOB: ["550 no"]}

    with pytest.raises(MailRefusedError):
        await office.mail(LETTER, CAUSE)


async def test_retries_have_the_same_message_id_and_recipients_have_different_ones(
    office: PostOffice, mail_server: MailServer
) -> None:
    await office.mail(LETTER, CAUSE)
    await office.mail(LETTER, Cause("another", CAUSE.type), [ANN])

    ids = [message["Message-ID"] for message in mail_server.taken]
    assert ids[0] == f"<{Parcel(CAUSE, 'email', ANN, 's').id}@example.org>"
    assert len(set(ids)) == 3


async def test_a_failing_webhook_does_not_send_the_mail_again(
    office: PostOffice, mail_server: MailServer, receiver: Receiver
) -> None:
    receiver.answers = [(500, {}, b""), (500, {}, b"")]
    payload = payload_of(CAUSE.type, datetime.now(UTC), {})

    for _ in range(2):
        await office.mail(LETTER, CAUSE)
        with pytest.raises(WebhookUnavailableError):
            await office.post("Operations", payload, CAUSE)
    await office.post("Operations", payload, CAUSE)
    await office.post("Operations", payload, CAUSE)

    assert len(mail_server.taken) == 2
    assert len(receiver.requests) == 3
    assert len(set(receiver.ids())) == 1


async def test_nobody_is_mailed_where_one_address_is_forged(office: PostOffice, mail_server: MailServer) -> None:
    with pytest.raises(UnsafeHeaderError):
        await office.mail(LETTER, CAUSE, [ANN, "bob@example.org\r\nBcc: eve@example.org"])

    assert mail_server.taken == []


async def test_the_log_counts_attempts_until_delivery(log: DeliveryLog) -> None:
    parcel = Parcel(CAUSE, "email", ANN, "Operations")

    first = await log.begin(parcel)
    deferred = await log.end(parcel, "deferred", "451 \x00later")
    second = await log.begin(parcel)
    delivered = await log.end(parcel, "delivered")
    third = await log.begin(parcel)

    assert (first.state, first.attempts) == ("pending", 1)
    assert (deferred.state, deferred.error) == ("deferred", "451 later")
    assert second.attempts == 2
    assert (delivered.state, delivered.error) == ("delivered", None)
    assert third == delivered


async def test_the_log_never_takes_a_delivery_back(log: DeliveryLog) -> None:
    parcel = Parcel(CAUSE, "webhook", "https://example.org/", "Operations")
    await log.begin(parcel)
    await log.end(parcel, "delivered")

    assert (await log.end(parcel, "refused", "late")).state == "delivered"


async def test_the_same_cause_has_a_row_for_each_destination(log: DeliveryLog) -> None:
    await log.begin(Parcel(CAUSE, "email", ANN, "Operations"))
    await log.begin(Parcel(CAUSE, "email", BOB, "Operations"))

    assert (await log.begin(Parcel(CAUSE, "email", ANN, "Operations"))).attempts == 2
    assert (await log.begin(Parcel(CAUSE, "webhook", ANN, "Operations"))).attempts == 1
