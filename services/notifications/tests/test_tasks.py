"""What notifications hears and does, run whole against a real database, mail server and receiver."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from obstore.store import MemoryStore
from sqlalchemy.ext.asyncio import AsyncEngine

from carillon.contracts import BackupFailed, NotificationDelivered
from carillon.errors import InvalidArgumentsError
from carillon.testing import InProcess, Rehearsal
from notifications.artefacts import StoredShelf
from notifications.bodies import Clerk
from notifications.callbacks import Callbacks, CallbackSecrets
from notifications.events import post_backup_failure
from notifications.mail import SmtpMailer, SmtpServer
from notifications.outbound import GuardedTransport
from notifications.post_office import PostOffice
from notifications.store import StoredDeliveries
from notifications.tasks import send_message, tasks
from notifications.webhooks import Poster, Webhook

if TYPE_CHECKING:
    from conftest import MailServer, Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
RUN = UUID("018f0000-0000-7000-8000-00000000000b")
ANN = "ann@example.org"


Resources = dict[type, object]


async def nobody(_: UUID) -> None:
    """Know no run."""


@pytest.fixture
async def resources(engine: AsyncEngine, mail_server: MailServer, receiver: Receiver) -> AsyncIterator[Resources]:
    poster = Poster(GuardedTransport(allow_private=True))
    mailer = SmtpMailer(SmtpServer("127.0.0.1", mail_server.port, None, None, "none"), "carillon@example.org")
    office = PostOffice(
        StoredDeliveries(engine),
        mailer,
        Webhook(receiver.url, [SECRET], poster),
        sender="carillon@example.org",
        recipients=[ANN],
    )
    callbacks = Callbacks(nobody, CallbackSecrets(engine), poster)
    clerk = Clerk(StoredShelf(MemoryStore()), attachment_limit=1000)
    yield {PostOffice: office, Clerk: clerk, Callbacks: callbacks}
    await poster.aclose()


@pytest.fixture
def domain(resources: Resources) -> InProcess:
    return InProcess(tasks, resources)


def said(domain: InProcess) -> list[tuple[str, str]]:
    return [(event.channel, event.destination) for event in domain.said if isinstance(event, NotificationDelivered)]


async def test_sending_a_message_twice_mails_it_once(domain: InProcess, mail_server: MailServer) -> None:
    await domain.run(send_message, subject="Hello", body="Good morning.", run_id=RUN)
    result = await domain.run(send_message, subject="Hello", body="Good morning.", run_id=RUN)

    assert mail_server.recipients == [ANN]
    assert result == {"delivered": [ANN], "refused": []}
    assert said(domain) == [("email", ANN), ("email", ANN)]


async def test_a_subject_with_a_line_break_is_refused_before_anything_is_sent(
    domain: InProcess, mail_server: MailServer
) -> None:
    with pytest.raises(InvalidArgumentsError):
        await domain.run(send_message, subject="Hello\r\nBcc: eve@example.org", body="", run_id=RUN)

    assert mail_server.taken == []


FAILED = BackupFailed(source="platform", stage="compare", reason="orders differs")


async def test_a_failed_backup_is_told_to_people_and_systems(
    resources: Resources, mail_server: MailServer, receiver: Receiver
) -> None:
    async with Rehearsal(tasks, resources=resources) as rehearsal:
        await rehearsal.hear(FAILED)
        await rehearsal.settle()
        delivered = rehearsal.said(NotificationDelivered)

    assert mail_server.taken[0]["Subject"] == "Backup of platform failed"
    assert json.loads(receiver.requests[0][1])["data"] == FAILED.model_dump(mode="json")
    assert {(each.channel, each.destination) for each in delivered} == {
        ("email", ANN),
        ("webhook", f"{receiver.origin}/..."),
    }


async def test_a_webhook_that_is_away_is_asked_again_until_it_is_back_and_told_once(
    resources: Resources, mail_server: MailServer, receiver: Receiver
) -> None:
    receiver.answers = [(503, {}, b"")] * 6

    async with Rehearsal(tasks, resources=resources) as rehearsal:
        await rehearsal.hear(FAILED)
        await rehearsal.settle()
        at_first = [each.channel for each in rehearsal.said(NotificationDelivered)]
        await rehearsal.advance(timedelta(hours=1))
        (posting,) = rehearsal.runs(post_backup_failure)
        in_the_end = [each.channel for each in rehearsal.said(NotificationDelivered)]

    assert (at_first, in_the_end) == (["email"], ["email", "webhook"])
    assert [each.outcome for each in posting.attempts] == ["retried"] * 6 + ["completed"]
    assert (len(receiver.ids()), len(set(receiver.ids()))) == (7, 1)
    assert mail_server.recipients == [ANN]
