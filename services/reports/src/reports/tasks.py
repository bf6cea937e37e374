"""What reports does. A task calls the domain and says what happened; a workflow puts such steps together."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar, Unpack

from pydantic import Field

from carillon import Partial, RemoteTask, Retry, Run, Tasks, Workflow
from carillon.contracts import ReportRendered, RollupsComputed
from carillon.options import SubmitOptions
from reports.batches import members_of, sorted_out, summed_up
from reports.deliveries import Delivered, delivered_to
from reports.files import FileFormat
from reports.operations import OperationsReports
from reports.period_reports import Collected, PeriodReports, ReadyReport, check_worth
from reports.periods import MOST_RECIPIENTS, ReportSpec
from reports.requests import period_of, requested

tasks = Tasks("reports")

#: Longer than the longest rendering that the settings allow, with time to keep the files.
TIMEOUT = timedelta(minutes=15)
RETRY = Retry(attempts=4, base=timedelta(seconds=2))
#: Collecting is one query and one file: a database or a storage that is away is soon back, or away for long.
COLLECT_TIMEOUT = timedelta(minutes=2)
COLLECT = Retry(attempts=6, base=timedelta(seconds=1), cap=timedelta(minutes=2))
#: How long a report may be under way to its recipients: mail servers ask to come back within hours.
DELIVERY = timedelta(days=1)
#: Members of one batch; each is a workflow of its own.
MOST_SPECS = 500

#: Mails one file to one recipient, once, with the retries that mail needs.
mail_artefact: RemoteTask[dict[str, list[str]]] = RemoteTask(
    "notifications.mail_artefact", returns=dict[str, list[str]]
)

Day = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$", json_schema_extra={"format": "date"})]
Recipients = Annotated[list[str], Field(min_length=1, max_length=MOST_RECIPIENTS)]
Specs = Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_SPECS)]
Share = Annotated[float, Field(ge=0, le=1)]
Measure = Literal["runs", "completed", "failed", "cancelled", "other", "seconds"]
Escalation = Annotated[Sequence[str], Field(max_length=MOST_RECIPIENTS)]
#: What a workflow returns, as JSON types.
Outcome = dict[str, Any]
Value = TypeVar("Value")


@tasks.task(timeout=TIMEOUT, retry=RETRY, default=True)
async def render_operations_report(
    rollups: RollupsComputed | None = None, *, run: Run, reports: OperationsReports
) -> ReportRendered:
    """Render the operations report from these rollups, or from the last ones heard, and keep every format of it.

    Safe to run twice: a report has the id of its run, and one that exists is returned as it is; files that a run left
    behind before it broke lie under that id too, and are replaced.
    """
    return await reports.render(run.id, rollups)


@tasks.task(timeout=COLLECT_TIMEOUT, retry=COLLECT)
async def collect_report_data(
    report_type: str, start_date: Day, end_date: Day, *, run: Run, reports: PeriodReports
) -> Collected:
    """Collect and keep the data of a report over a period; both days belong to it.

    Safe to run twice: data is kept under the id of its run, and what is kept there stays.
    """
    period = period_of(report_type=report_type, start_date=start_date, end_date=end_date)
    return await reports.collect(run.id, period)


@tasks.task(timeout=TIMEOUT, retry=RETRY)
async def format_report(
    collected: Collected, output_format: FileFormat, *, run: Run, reports: PeriodReports
) -> ReadyReport:
    """Render collected data in one format, read it back, add it up, and keep the file.

    Safe to run twice: a report has the id of its run, and one that exists is returned as it is.
    """
    return await reports.format(run.id, collected, output_format)


@tasks.workflow()
async def deliver_report(
    report: ReadyReport, recipients: Recipients, *, flow: Workflow
) -> Delivered | Partial[Delivered]:
    """Mail a report to each recipient; where some do not take it the run ends partial, and where none does it fails.

    Safe to run twice: notifications mails an artefact to a recipient once, by whatever run.
    """
    mail = report.model_dump(include={"artefact", "title", "summary", "as_of"})
    mailed = await flow.map(lambda recipient: flow.step(mail_artefact, to=recipient, **mail), recipients, need=0)
    delivered = delivered_to(recipients, mailed)
    return _as_far_as_it_went(delivered, delivered.complaint)


@tasks.workflow()
async def generate_and_deliver_report(
    report_type: str,
    start_date: Day,
    end_date: Day,
    output_format: str,
    recipients: Recipients,
    skip_if_empty: bool = False,
    *,
    flow: Workflow,
) -> Outcome | Partial[Outcome]:
    """Collect the data of a report over a period, format it, and deliver it to each recipient.

    With `skip_if_empty` nothing is made where there is nothing to report; the result says so.

    Safe to run twice: each step is a run of its own, and its result is recorded.
    """
    spec = requested(
        report_type=report_type,
        start_date=start_date,
        end_date=end_date,
        output_format=output_format,
        recipients=recipients,
    )
    collected = await flow.step(collect_report_data, **spec.period)
    if skip_if_empty and collected.empty is not None:
        return {"status": "skipped", "reason": collected.empty}
    done = await _format_and_deliver(flow, collected, spec.output_format, spec.recipients)
    return _as_far_as_it_went(done, done["reason"])


@tasks.workflow()
async def batch_generate_reports(
    report_specs: Specs,
    parallel: bool = True,
    need: Share = 0.0,
    *,
    flow: Workflow,
) -> Outcome | Partial[Outcome]:
    """Generate and deliver many reports, in parallel or one after the other; a spec has the arguments of one.

    A spec that is invalid is skipped with the reason, and so is one that says `skip_if_empty` and has nothing to
    report; one that fails does not disturb the others. `need` is the least share of the reports that has to go well,
    from 0 to 1, not counting the empty ones; one has to in any case. Where too few do the run fails, where some do not
    it ends partial.

    Safe to run twice: each report is a workflow of its own, and its result is recorded.
    """
    valid, skipped = sorted_out(report_specs)

    def generate(spec: ReportSpec) -> asyncio.Future[Any]:
        return flow.step(generate_and_deliver_report, **spec.model_dump(mode="json"))

    batch = await flow.map(generate, valid.values(), concurrency=None if parallel else 1, need=0)
    return _as_far_as_it_went(*summed_up([*skipped, *members_of(list(valid), batch)], need))


@tasks.workflow()
async def generate_conditional_report(
    report_type: str,
    start_date: Day,
    end_date: Day,
    output_format: str,
    recipients: Recipients,
    threshold: float = 0,
    measure: Measure = "failed",
    escalate_to: Escalation = (),
    *,
    flow: Workflow,
) -> Outcome | Partial[Outcome]:
    """Collect the data of a report, and branch by it: more than `threshold` of `measure` takes the high-priority path.

    On that path the priority is high down to the last mail, and the report reaches `escalate_to` as well. The result
    says which path was taken, and why.

    Safe to run twice: each step is a run of its own, and its result is recorded.
    """
    spec = requested(
        report_type=report_type,
        start_date=start_date,
        end_date=end_date,
        output_format=output_format,
        recipients=[*recipients, *escalate_to],
    )
    collected = await flow.step(collect_report_data, **spec.period)
    found = collected.numbers.get(measure, 0)
    if found > threshold:
        branch = {"path": "high_priority", "why": f"{measure} is {found:g}, and above {threshold:g}"}
        done = await _format_and_deliver(flow, collected, spec.output_format, spec.recipients, priority="high")
    else:
        branch = {"path": "standard", "why": f"{measure} is {found:g}, and not above {threshold:g}"}
        standard = [recipient for recipient in spec.recipients if recipient in recipients]
        done = await _format_and_deliver(flow, collected, spec.output_format, standard)
    return _as_far_as_it_went(branch | done, done["reason"])


async def _format_and_deliver(
    flow: Workflow, collected: Collected, kind: FileFormat, recipients: Sequence[str], **options: Unpack[SubmitOptions]
) -> Outcome:
    """The steps after collecting, run by these options."""
    check_worth(collected)
    report = await flow.step(format_report.options(**options), collected, kind)
    soon: SubmitOptions = {**options, "deadline": DELIVERY}
    delivered = _value_of(await flow.step(deliver_report.options(**soon), report, list(recipients)))
    return {
        "status": "delivered",
        "reason": delivered.complaint,
        "title": report.title,
        "artefact": report.artefact.model_dump(mode="json"),
        "numbers": collected.numbers,
        **delivered.model_dump(mode="json"),
    }


def _as_far_as_it_went(value: Value, complaint: str | None) -> Value | Partial[Value]:
    return value if complaint is None else Partial(value, reason=complaint)


def _value_of(returned: Value | Partial[Value]) -> Value:
    return returned.value if isinstance(returned, Partial) else returned
