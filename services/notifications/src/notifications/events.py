"""What notifications hears. Mail and webhook are runs of their own, so that neither waits for the other's retries."""

from datetime import UTC, datetime, timedelta

from carillon import Limits, Retry, Run
from carillon.contracts import BackupFailed, Event, ReportRendered, RunEnded
from notifications.bodies import Clerk, as_subject, failure_letter
from notifications.callbacks import Callbacks
from notifications.deliveries import Cause
from notifications.post_office import PostOffice
from notifications.tasks import MAIL, MAIL_TIMEOUT, announce, tasks
from notifications.webhooks import payload_of

#: Receivers are down for minutes or hours, not for seconds.
WEBHOOK = Retry(attempts=12, base=timedelta(seconds=5), cap=timedelta(hours=4))
#: Longer than one exchange may take.
WEBHOOK_TIMEOUT = timedelta(seconds=30)
#: One that answers slowly, or not at all, must not occupy every worker: mail and the other receivers go on.
ONE_RECEIVER = Limits(key="event.receiver", per_key=4)


@tasks.hears(ReportRendered, timeout=MAIL_TIMEOUT, retry=MAIL)
async def mail_report(event: ReportRendered, *, run: Run, clerk: Clerk, office: PostOffice) -> dict[str, list[str]]:
    """Mail a rendered report, with its files, to the configured recipients.

    Safe to run twice: each (event, recipient) is one row, and a row that was delivered is not sent again.
    """
    letter = await clerk.report_letter(event)
    return announce(run, await office.mail(letter, _cause(run)))


@tasks.hears(ReportRendered, timeout=WEBHOOK_TIMEOUT, retry=WEBHOOK)
async def post_report(event: ReportRendered, *, run: Run, office: PostOffice) -> dict[str, list[str]]:
    """Tell the configured webhook, where there is one, that a report was rendered.

    Safe to run twice: every attempt has the same webhook-id, and a row that was delivered is not sent again.
    """
    return announce(run, await office.post(as_subject(event.title), _payload(run, event), _cause(run)))


@tasks.hears(BackupFailed, timeout=MAIL_TIMEOUT, retry=MAIL)
async def mail_backup_failure(event: BackupFailed, *, run: Run, office: PostOffice) -> dict[str, list[str]]:
    """Mail the configured recipients that a backup could not be made or proven.

    Safe to run twice: each (event, recipient) is one row, and a row that was delivered is not sent again.
    """
    return announce(run, await office.mail(failure_letter(event), _cause(run)))


@tasks.hears(BackupFailed, timeout=WEBHOOK_TIMEOUT, retry=WEBHOOK)
async def post_backup_failure(event: BackupFailed, *, run: Run, office: PostOffice) -> dict[str, list[str]]:
    """Tell the configured webhook, where there is one, that a backup failed.

    Safe to run twice: every attempt has the same webhook-id, and a row that was delivered is not sent again.
    """
    return announce(run, await office.post(failure_letter(event).subject, _payload(run, event), _cause(run)))


@tasks.hears(RunEnded, timeout=WEBHOOK_TIMEOUT, retry=WEBHOOK, limits=ONE_RECEIVER)
async def call_back(event: RunEnded, *, run: Run, callbacks: Callbacks, office: PostOffice) -> dict[str, list[str]]:
    """Tell whoever submitted a run, at the address given with it, how it ended.

    Safe to run twice: the webhook-id comes from the ended run, and a row that was delivered is not sent again.
    """
    ended, receiver = await callbacks.about(event.run_id)
    payload = payload_of(ended.type, ended.finished_at, ended.model_dump(mode="json", exclude={"receiver"}))
    cause = Cause(f"{ended.run_id}/end", ended.type)
    return announce(run, await office.post_to(receiver, as_subject(f"{ended.task} {ended.state}"), payload, cause))


def _cause(run: Run) -> Cause:
    """Name the event behind this run; a handler submitted by hand is its own cause."""
    return Cause(str(run.id), run.task) if run.cause is None else Cause(str(run.cause.id), run.cause.type)


def _payload(run: Run, event: Event) -> bytes:
    happened = datetime.fromtimestamp(0, UTC) if run.cause is None else run.cause.time
    return payload_of(event.type, happened, event.model_dump(mode="json"))
