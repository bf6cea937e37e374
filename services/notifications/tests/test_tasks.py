"""What notifications hears and does, run whole against a real database, mail server and receiver."""

from __future__ import annotations

import hashlib
import json
import mailbox
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
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
from notifications.errors import DamagedArtefactError
from notifications.events import post_backup_failure
from notifications.mail import MaildirMailer, SmtpMailer, SmtpServer
from notifications.outbound import GuardedTransport
from notifications.post_office import PostOffice
from notifications.store import StoredDeliveries
from notifications.tasks import mail_artefact, send_message, tasks
from notifications.webhooks import Poster, Webhook

if TYPE_CHECKING:
    from conftest import MailServer, Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
RUN = UUID("018f0000-0000-7000-8000-00000000000b")
ANN, BOB = "ann@example.org", "bob@example.org"


Resources = dict[type, object]


async def nobody(_: UUID) -> None:
    """Know no run."""


@pytest.fixture
def storage() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def resources(
    engine: AsyncEngine, mail_server: MailServer, receiver: Receiver, storage: MemoryStore
) -> AsyncIterator[Resources]:
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
    clerk = Clerk(StoredShelf(storage), attachment_limit=1000)
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


REPORT = b"day,runs\n"
FILE = {
    "format": "csv",
    "filename": "operations.csv",
    "media_type": "text/csv; charset=utf-8",
    "key": "reports/operations/1/operations.csv",
    "size_bytes": len(REPORT),
    "sha256": hashlib.sha256(REPORT).hexdigest(),
}
ARTEFACT = {"artefact": FILE, "title": "Operations", "summary": "12 runs ended.", "as_of": "2026-11-24T12:00:00Z"}


async def test_an_artefact_is_mailed_to_each_recipient_once_whichever_run_asks(
    domain: InProcess, storage: MemoryStore, mail_server: MailServer
) -> None:
    storage.put(FILE["key"], REPORT)

    for recipient in (ANN, BOB, ANN):
        result = await domain.run(mail_artefact, **ARTEFACT, to=recipient)

    assert result == {"delivered": [ANN], "refused": []}
    assert mail_server.recipients == [ANN, BOB]
    (attached,) = mail_server.taken[0].iter_attachments()
    assert (attached.get_filename(), attached.get_content()) == ("operations.csv", REPORT.decode())


async def test_an_artefact_is_put_into_the_folder_for_each_recipient(
    resources: Resources, engine: AsyncEngine, storage: MemoryStore, tmp_path: Path
) -> None:
    storage.put(FILE["key"], REPORT)
    mailer = MaildirMailer(tmp_path / "mail")
    office = PostOffice(StoredDeliveries(engine), mailer, None, sender="carillon@example.org", recipients=[ANN])
    domain = InProcess(tasks, {**resources, PostOffice: office})

    for recipient in (ANN, BOB, ANN):
        await domain.run(mail_artefact, **ARTEFACT, to=recipient)

    messages = mailbox.Maildir(tmp_path / "mail", create=False)
    assert sorted(message["To"] for message in messages) == [ANN, BOB]


async def test_a_file_that_is_not_the_one_that_was_rendered_is_mailed_to_nobody(
    domain: InProcess, storage: MemoryStore, mail_server: MailServer
) -> None:
    storage.put(FILE["key"], REPORT.replace(b"runs", b"lies"))

    with pytest.raises(DamagedArtefactError):
        await domain.run(mail_artefact, **ARTEFACT, to=ANN)

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
