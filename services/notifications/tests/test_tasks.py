"""What notifications hears and does, run whole against a real database, mail server and receiver."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from obstore.store import MemoryStore
from sqlalchemy.ext.asyncio import AsyncEngine

from carillon.contracts import BackupFailed, NotificationDelivered
from carillon.errors import InvalidArgumentsError
from carillon.testing import InProcess
from notifications.artefacts import StoredShelf
from notifications.bodies import Clerk
from notifications.errors import WebhookUnavailableError
from notifications.events import mail_backup_failure, post_backup_failure
from notifications.mail import SmtpMailer, SmtpServer
from notifications.outbound import GuardedTransport
from notifications.post_office import PostOffice
from notifications.store import StoredDeliveries
from notifications.tasks import send_message, tasks
from notifications.webhooks import Webhook

if TYPE_CHECKING:
    from conftest import MailServer, Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
RUN = UUID("018f0000-0000-7000-8000-00000000000b")
ANN = "ann@example.org"


@pytest.fixture
async def domain(engine: AsyncEngine, mail_server: MailServer, receiver: Receiver) -> AsyncIterator[InProcess]:
    webhook = Webhook(receiver.url, SECRET, GuardedTransport(allow_private=True))
    mailer = SmtpMailer(SmtpServer("127.0.0.1", mail_server.port, None, None, "none"), "carillon@example.org")
    office = PostOffice(StoredDeliveries(engine), mailer, webhook, sender="carillon@example.org", recipients=[ANN])
    yield InProcess(tasks, {PostOffice: office, Clerk: Clerk(StoredShelf(MemoryStore()), attachment_limit=1000)})
    await webhook.aclose()


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


async def test_a_failed_backup_is_told_to_people_and_systems(
    domain: InProcess, mail_server: MailServer, receiver: Receiver
) -> None:
    event = BackupFailed(source="platform", stage="compare", reason="orders differs")

    await domain.run(mail_backup_failure, event=event)
    await domain.run(post_backup_failure, event=event)

    assert mail_server.taken[0]["Subject"] == "Backup of platform failed"
    assert json.loads(receiver.requests[0][1])["data"] == event.model_dump(mode="json")
    assert said(domain) == [("email", ANN), ("webhook", receiver.url)]


async def test_nothing_is_said_of_a_webhook_that_did_not_arrive(domain: InProcess, receiver: Receiver) -> None:
    receiver.answers = [(503, {}, b"")]

    with pytest.raises(WebhookUnavailableError):
        await domain.run(post_backup_failure, event=BackupFailed(source="platform", stage="dump", reason="no disk"))

    assert said(domain) == []
