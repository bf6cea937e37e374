"""Carries letters to mailboxes: by SMTP, or into a maildir folder where no mail server is set."""

from __future__ import annotations

import asyncio
import mailbox
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import aiosmtplib
import structlog

from notifications.errors import MailDeferredError, MailRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from email.message import EmailMessage
    from pathlib import Path
    from uuid import UUID

log = structlog.get_logger(__name__)

#: Longest wait for one step of an SMTP conversation, in seconds; RFC 5321 allows servers minutes, people do not.
STEP_SECONDS = 30
#: Longest whole SMTP conversation, in seconds.
TOTAL_SECONDS = 120
#: From this reply code on, trying again cannot help (RFC 5321, 4.2.1).
PERMANENT = 500
#: How TLS is used: `starttls` demands it, `tls` begins with it, `none` is for servers on the same machine.
TLSMode = Literal["starttls", "tls", "none"]


@dataclass(frozen=True, slots=True)
class Envelope:
    """One hand-over: where it goes, as the delivery log names it, and who is meant."""

    destination: str
    recipients: tuple[str, ...]


class Mailer(Protocol):
    """What takes a message and gets it to people."""

    channel: Literal["email", "maildir"]

    def envelopes(self, recipients: Sequence[str]) -> list[Envelope]:
        """Split recipients into hand-overs that can fail alone."""

    async def send(self, message: EmailMessage, envelope: Envelope, delivery: UUID) -> None:
        """Hand one message over, or say by the error's kind whether to try again."""


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """How to reach the mail server."""

    host: str
    port: int
    user: str | None
    password: str | None
    tls: TLSMode


class SmtpMailer:
    """Sends each recipient a message of their own, so that one refusal concerns nobody else."""

    channel: Literal["email", "maildir"] = "email"

    def __init__(self, server: SmtpServer, sender: str) -> None:
        self._server = server
        self._sender = sender

    def envelopes(self, recipients: Sequence[str]) -> list[Envelope]:
        """One for each recipient, each once."""
        return [Envelope(recipient, (recipient,)) for recipient in dict.fromkeys(recipients)]

    async def send(self, message: EmailMessage, envelope: Envelope, delivery: UUID) -> None:  # noqa: ARG002 - in the Message-ID
        """Hand the message to the server; 4xx and silence mean later, 5xx means never."""
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                await self._talk(message, envelope)
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _refusal(error.recipients[0]) from error
        except aiosmtplib.SMTPResponseException as error:
            raise _refusal(error) from error
        except (aiosmtplib.SMTPNotSupported, ValueError) as error:
            reason = f"the mail server cannot do what is asked: {error}"
            raise MailRefusedError(reason) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            reason = f"no conversation with {self._server.host}:{self._server.port}: {error or type(error).__name__}"
            raise MailDeferredError(reason) from error

    async def _talk(self, message: EmailMessage, envelope: Envelope) -> None:
        server = self._server
        await aiosmtplib.send(
            message,
            sender=self._sender,
            recipients=list(envelope.recipients),
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            use_tls=server.tls == "tls",
            start_tls=server.tls == "starttls",
            timeout=STEP_SECONDS,
        )


def _refusal(error: aiosmtplib.SMTPResponseException) -> MailDeferredError | MailRefusedError:
    reason = f"the mail server answered {error.code} {str(error.message)[:300]}"
    # Codes below 400 in an error are broken conversations, which the next attempt may well not have.
    return MailRefusedError(reason) if error.code >= PERMANENT else MailDeferredError(reason)


class MaildirMailer:
    """Puts messages into a maildir folder that any mail program opens."""

    channel: Literal["email", "maildir"] = "maildir"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def envelopes(self, recipients: Sequence[str]) -> list[Envelope]:
        """One, for the folder is the only place it goes to."""
        return [Envelope(str(self._folder), tuple(dict.fromkeys(recipients)))]

    async def send(self, message: EmailMessage, envelope: Envelope, delivery: UUID) -> None:
        """Put the message into the folder, once for each delivery."""
        await asyncio.to_thread(self._put, message, str(delivery))
        log.info("mail put into a folder", folder=envelope.destination, subject=message["Subject"])

    def _put(self, message: EmailMessage, name: str) -> None:
        """Write below `tmp` and rename, as maildir asks; the delivery's name makes the second time the same file."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        mailbox.Maildir(self._folder, create=True)
        if any(self._folder.glob(f"cur/{name}*")):
            return  # A person has read it already.
        partial = self._folder / "tmp" / f"{name}.{os.getpid()}.{socket.gethostname().replace('/', '_')}"
        with partial.open("wb") as file:
            file.write(message.as_bytes())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._folder / "new" / name)
