"""What notifications does. Each task: write a message, take it to its destinations, say which it reached."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

from pydantic import AwareDatetime, Field

from carillon import Retry, Run, Tasks
from carillon.contracts import Artefact, NotificationDelivered, ReportRendered
from notifications.bodies import Clerk
from notifications.deliveries import Cause, Delivery
from notifications.letters import MAX_ADDRESS, MAX_SUBJECT, Letter
from notifications.post_office import PostOffice

tasks = Tasks("notifications")

#: Mail servers that ask to come back mean minutes, often several.
MAIL = Retry(attempts=8, base=timedelta(seconds=10), cap=timedelta(minutes=30))
#: Longer than fifty slow conversations in a row need to be noticed.
MAIL_TIMEOUT = timedelta(minutes=15)

SubjectLine = Annotated[str, Field(min_length=1, max_length=MAX_SUBJECT, pattern=r"^[^\x00-\x1f\x7f]*$")]
Body = Annotated[str, Field(max_length=200_000, pattern=r"^[^\x00]*$")]
EmailAddress = Annotated[str, Field(max_length=MAX_ADDRESS, pattern=r"^[^\x00-\x20\x7f@]+@[^\x00-\x20\x7f@]+$")]
Recipients = Annotated[list[EmailAddress], Field(min_length=1, max_length=50)]


@tasks.task(timeout=MAIL_TIMEOUT, retry=MAIL, default=True)
async def send_message(
    subject: SubjectLine, body: Body, to: Recipients | None = None, *, run: Run, office: PostOffice
) -> dict[str, list[str]]:
    """Mail a plain-text message to the given addresses, or to the configured recipients.

    Safe to run twice: each (run, recipient) is one row, and a row that was delivered is not sent again.
    """
    deliveries = await office.mail(Letter(subject, body), Cause(str(run.id), run.task), to)
    return announce(run, deliveries)


@tasks.task(timeout=MAIL_TIMEOUT, retry=MAIL)
async def mail_artefact(
    artefact: Artefact,
    to: EmailAddress,
    title: str,
    summary: Body,
    as_of: AwareDatetime,
    *,
    run: Run,
    clerk: Clerk,
    office: PostOffice,
) -> dict[str, list[str]]:
    """Mail one file that a service rendered and keeps in storage to one recipient; `title` becomes the subject.

    Safe to run twice: each (artefact, recipient) is one row, by whatever run, and a row that was delivered is not sent
    again.
    """
    report = ReportRendered(report=title, title=title, summary=summary, as_of=as_of, artefacts=[artefact])
    letter = await clerk.report_letter(report)
    # The recipient is part of the cause, for a folder is one destination whoever is meant.
    return announce(run, await office.mail(letter, Cause(f"{artefact.key} to {to}", run.task), [to]))


def announce(run: Run, deliveries: Sequence[Delivery]) -> dict[str, list[str]]:
    """Say which destinations were reached, and return those and the refused ones as the run's result."""
    result: dict[str, list[str]] = {"delivered": [], "refused": []}
    for delivery in deliveries:
        parcel = delivery.parcel
        if delivery.state != "delivered":
            result["refused"].append(f"{parcel.destination}: {delivery.error}")
            continue
        result["delivered"].append(parcel.destination)
        run.say(
            NotificationDelivered(
                channel=parcel.channel,
                destination=parcel.destination,
                subject_line=parcel.subject,
                cause=parcel.cause.id,
            )
        )
    return result
