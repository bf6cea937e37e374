"""How figures, times and the summary are put into words, the same in every format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.dataset import HOURS, TITLE, busiest_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date, datetime

    from reports.dataset import OperationsData, Runs, TaskLine
    from reports.periods import Period, PeriodData

NOTHING = "\N{EN DASH}"
SUCCESS_RULE = "Success rate: completed runs among all that ended and were not cancelled."
_SUMMARY_NAME_LIMIT = 80
#: In milliseconds.
_SECOND, _ROUNDS_TO_A_MINUTE = 1000, 59_950


def number(value: int) -> str:
    """1234 as 1,234."""
    return f"{value:,}"


def seconds(milliseconds: float | None) -> str:
    """1234567 as 1,234.567: exact, so that a column adds up."""
    return NOTHING if milliseconds is None else f"{milliseconds / 1000:,.3f}"


def percent(share: float | None) -> str:
    """0.9905 as 99.1 %; only a flawless period may say 100 %, and only a hopeless one 0 %."""
    if share is None:
        return NOTHING
    if share in {0.0, 1.0}:
        return f"{share:.0%}".replace("%", " %")
    return f"{min(max(share * 100, 0.1), 99.9):.1f} %"


def duration(milliseconds: int) -> str:
    """A length of time in its two largest units."""
    if milliseconds < _SECOND:
        return f"{milliseconds} ms"
    if milliseconds < _ROUNDS_TO_A_MINUTE:
        return f"{milliseconds / 1000:.1f} s"
    whole = round(milliseconds / 1000)
    for unit, part, size in (("d", "h", 86400), ("h", "min", 3600), ("min", "s", 60)):
        if whole >= size:
            rest = whole % size // {"h": 3600, "min": 60, "s": 1}[part]
            return f"{whole // size:,} {unit} {rest} {part}"
    return f"{whole} s"


def moment(when: datetime) -> str:
    """24 Nov 2026, 03:25."""
    return f"{day(when)} {when:%Y, %H:%M}"


def day(when: date) -> str:
    """24 Nov; English whatever the machine's locale is."""
    return f"{when.day} {_MONTHS[when.month - 1]}"


def weekday(when: datetime) -> str:
    """Tue 24 Nov."""
    return f"{_WEEKDAYS[when.weekday()]} {day(when)}"


def period(data: OperationsData) -> str:
    """The period of the headline figures."""
    return f"{moment(data.since)} to {moment(data.as_of)} UTC"


def days(over: Period) -> str:
    """1 Jan 2025 to 31 Jan 2025, or the one day."""
    first, last = (f"{day(when)} {when.year}" for when in (over.start_date, over.end_date))
    return first if first == last else f"{first} to {last}"


def headlines(recent: Runs, tasks: Iterable[TaskLine], when: str) -> list[tuple[str, str, str]]:
    """Label, figure and remark of the five figures a reader sees first; `when` they ended is `in the last hour`."""
    busiest = busiest_of(tasks)
    return [
        ("Runs ended", number(recent.ended), when),
        ("Success rate", percent(recent.success_rate), f"{number(recent.completed)} completed"),
        ("Failures", number(recent.failed), f"{number(recent.cancelled)} cancelled"),
        ("Execution time", duration(recent.execution_ms), _mean(recent)),
        ("Busiest task", busiest.name if busiest else NOTHING, f"{number(busiest.ended)} runs" if busiest else "none"),
    ]


def title(data: OperationsData) -> str:
    """The title of one issue of the report."""
    return f"{TITLE}, {day(data.as_of)} {data.as_of:%Y}"


def period_title(data: PeriodData) -> str:
    """The title of a report over a period."""
    return f"{data.period.title}, {days(data.period)}"


def summary(data: OperationsData) -> str:
    """A few sentences that stand in a message without the files."""
    if not data.recent.ended:
        return f"No run ended in the last {HOURS} hours (since {moment(data.since)} UTC). {advice()}"
    return _summary(data.recent, data.tasks, f"in the last {HOURS} hours")


def period_summary(data: PeriodData) -> str:
    """The same of a report over a period, and what its figures leave out."""
    when = f"from {days(data.period)}"
    counted = _summary(data.total, data.tasks, when) if data.total.ended else f"{nothing(data)}."
    return " ".join((counted, *data.notes))


def nothing(data: PeriodData) -> str:
    """That there is nothing to count."""
    counted = "No run of a task that failed" if data.period.report_type == "failures" else "No run"
    return f"{counted} ended from {days(data.period)}"


def _summary(recent: Runs, tasks: Iterable[TaskLine], when: str) -> str:
    busiest = busiest_of(tasks)
    parts = [f"{number(getattr(recent, state))} {state}" for state in ("completed", "failed", "cancelled")]
    parts += [f"{number(recent.other)} otherwise"] if recent.other else []
    ended = ", ".join(part for part in parts if not part.startswith("0 "))
    sentences = [f"{_runs(recent.ended)} ended {when}: {ended}."]
    if recent.success_rate is not None:
        sentences.append(f"Success rate {percent(recent.success_rate)}.")
    if busiest:
        sentences.append(f"Busiest task: {_short(busiest.name)} ({_runs(busiest.ended)}).")
    sentences.append(f"Execution took {duration(recent.execution_ms)} in all.")
    return " ".join(sentences)


def advice() -> str:
    """What to do about an empty report."""
    return (
        "Nothing is wrong with the report: it has nothing to count yet. To see work here, run “carillon tour”, "
        "kick a task (POST /api/v1/tasks/{domain}/kick), or check that the schedules are not paused."
    )


def chart_text(unit: str, total: Runs, peak: str) -> str:
    """What a chart shows, for those who cannot see it."""
    counts = f"{_runs(total.ended)}, {number(total.failed)} failed"
    return f"Columns of runs ended per {unit}, by state: {counts}; most in the {unit} labelled {peak}."


def _runs(count: int) -> str:
    return f"{number(count)} run" + ("" if count == 1 else "s")


def _mean(runs: Runs) -> str:
    return "nothing ran" if runs.mean_ms is None else f"mean {duration(round(runs.mean_ms))} a run"


def _short(name: str) -> str:
    return name if len(name) <= _SUMMARY_NAME_LIMIT else name[: _SUMMARY_NAME_LIMIT - 1] + "…"


_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
