"""Mail reaches a real server or a folder, and the server's answer decides what is done next."""

from __future__ import annotations

import mailbox
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from notifications.errors import MailDeferredError, MailRefusedError
from notifications.letters import Attachment, Letter, compose
from notifications.mail import MaildirMailer, SmtpMailer, SmtpServer

if TYPE_CHECKING:
    from conftest import MailServer

SENDER = "carillon@example.org"
LETTER = Letter("Operations", "all well", "<p>all well</p>", (Attachment("r.csv", "text/csv", b"a,b\r\n1,2\r\n"),))


def mailer(port: int, tls: str = "none") -> SmtpMailer:
    return SmtpMailer(SmtpServer("127.0.0.1", port, None, None, tls), SENDER)  # type: ignore[arg-type]


async def send(by: SmtpMailer | MaildirMailer, *recipients: str, delivery: UUID | None = None) -> None:
    delivery = delivery or uuid4()
    for envelope in by.envelopes(recipients):
        message = compose(
            LETTER, sender=SENDER, recipients=envelope.recipients, delivery=delivery, written=datetime.now(UTC)
        )
        await by.send(message, envelope, delivery)


async def test_a_letter_arrives_with_text_html_and_files(mail_server: MailServer) -> None:
    await send(mailer(mail_server.port), "ann@example.org")

    (message,) = mail_server.taken
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert text.get_content().strip() == "all well"
    assert html is not None
    assert html.get_content().strip() == "<p>all well</p>"
    assert [part.get_filename() for part in message.iter_attachments()] == ["r.csv"]
    assert [part.get_content() for part in message.iter_attachments()] == ["a,b\r\n1,2\r\n"]


async def test_each_recipient_sees_only_their_own_address(mail_server: MailServer) -> None:
    await send(mailer(mail_server.port), "ann@example.org", "bob@example.org", "ann@example.org")

    assert [message["To"] for message in mail_server.taken] == ["ann@example.org", "bob@example.org"]


async def test_a_4xx_answer_means_later(mail_server: MailServer) -> None:
    mail_server.answers["ann@example.org"] = ["451 4.7.1 greylisted"]

    with pytest.raises(MailDeferredError, match=r"451 .*greylisted"):
        await send(mailer(mail_server.port), "ann@example.org")


async def test_a_5xx_answer_means_never(mail_server: MailServer) -> None:
    mail_server.answers["ann@example.org"] = ["550 5.1.1 no such mailbox"]

    with pytest.raises(MailRefusedError, match=r"550 .*no such mailbox"):
        await send(mailer(mail_server.port), "ann@example.org")


async def test_a_server_that_is_down_means_later(closed_port: int) -> None:
    with pytest.raises(MailDeferredError, match=r"no conversation with 127\.0\.0\.1"):
        await send(mailer(closed_port), "ann@example.org")


async def test_mail_is_not_sent_in_the_clear_where_tls_is_demanded(mail_server: MailServer) -> None:
    with pytest.raises((MailRefusedError, MailDeferredError)):
        await send(mailer(mail_server.port, "starttls"), "ann@example.org")

    assert mail_server.taken == []


async def test_the_user_and_password_open_a_server_that_asks_for_them(guarded_mail_server: MailServer) -> None:
    server = SmtpServer("127.0.0.1", guarded_mail_server.port, "carillon", "correct horse", "none")

    await send(SmtpMailer(server, SENDER), "ann@example.org")

    assert guarded_mail_server.logins == 1
    assert guarded_mail_server.recipients == ["ann@example.org"]


async def test_a_wrong_password_waits_for_a_person_and_is_not_shown(guarded_mail_server: MailServer) -> None:
    server = SmtpServer("127.0.0.1", guarded_mail_server.port, "carillon", "battery staple", "none")

    with pytest.raises(MailRefusedError, match="535") as caught:
        await send(SmtpMailer(server, SENDER), "ann@example.org")

    assert "battery" not in str(caught.value)


async def test_without_a_server_mail_lies_in_a_folder_that_mail_programs_open(tmp_path: Path) -> None:
    await send(MaildirMailer(tmp_path / "home" / "mail"), "ann@example.org", "bob@example.org")

    (message,) = mailbox.Maildir(tmp_path / "home" / "mail", create=False)
    assert message["Subject"] == "Operations"
    assert message["To"] == "ann@example.org, bob@example.org"


async def test_putting_a_delivery_into_the_folder_twice_leaves_one_message(tmp_path: Path) -> None:
    delivery = uuid4()

    await send(MaildirMailer(tmp_path / "mail"), "ann@example.org", delivery=delivery)
    await send(MaildirMailer(tmp_path / "mail"), "ann@example.org", delivery=delivery)

    assert len(mailbox.Maildir(tmp_path / "mail", create=False)) == 1


async def test_a_message_that_was_read_does_not_come_back(tmp_path: Path) -> None:
    delivery = uuid4()
    await send(MaildirMailer(tmp_path / "mail"), "ann@example.org", delivery=delivery)
    (tmp_path / "mail" / "new" / str(delivery)).rename(tmp_path / "mail" / "cur" / f"{delivery}:2,S")

    await send(MaildirMailer(tmp_path / "mail"), "ann@example.org", delivery=delivery)

    assert len(mailbox.Maildir(tmp_path / "mail", create=False)) == 1
