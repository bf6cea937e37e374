"""The subcommands, each a sentence and a call; the modules they call are imported when they are used, not before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carillon.cli import acting
from carillon.cli.runs import runs
from carillon.cli.workflows import approvals, workflows

# Each command imports its module when it is used: `carillon serve` need not load the doctor.
app = typer.Typer(
    name="carillon",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A platform for tasks and events: one service for each domain, a clock, and a keyboard.",
    epilog="Ends with 0 when all is well, 2 when what was typed does not fit, 78 when a setting has to be changed, and "
    "else 1.",
)


@app.command()
def up() -> None:
    """Start the whole platform on this machine, on servers of its own unless DATABASE_URL and REDIS_URL name others."""
    from carillon.cli.up import run  # noqa: PLC0415 - see above

    raise typer.Exit(run())


@app.command()
def serve(service: Annotated[str, typer.Argument(help="Its one word, such as `backup`.")]) -> None:
    """Run one service as this process, against the servers that DATABASE_URL, REDIS_URL and RABBIT_URL name."""
    from carillon.cli.serve import run  # noqa: PLC0415 - see above

    raise typer.Exit(run(service))


@app.command()
def migrate() -> None:
    """Bring the tables of the ledger and of every installed service up to date; safe to run several times at once."""
    from carillon.cli.migrate import run  # noqa: PLC0415 - see above

    raise typer.Exit(run())


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Its one word, such as `billing`.")],
    *,
    into: Annotated[Path, typer.Option(help="Where its folder is made; nothing is written over.")] = Path(),
) -> None:
    """Write a service of your own: task, event handler, workflow, table, tests; and say how to run it."""
    from carillon.cli.new import run  # noqa: PLC0415 - see above

    raise typer.Exit(run(name, into))


@app.command()
def doctor() -> None:
    """Examine connections, topology, versions, tools, the clock and the services, and say what to do."""
    from carillon.cli.doctor import run  # noqa: PLC0415 - see above

    raise typer.Exit(run())


audit = typer.Typer(help="Who did what, when, why and from where; `carillon audit verify` checks that it still holds.")
app.add_typer(audit, name="audit")


@audit.callback(invoke_without_command=True)
def newest(
    context: typer.Context,
    *,
    actor: Annotated[str | None, typer.Option(help="A key, a person or a service.")] = None,
    action: Annotated[str | None, typer.Option(help="What was done, such as `schedule.paused`.")] = None,
    subject: Annotated[str | None, typer.Option(help="What it was done to.")] = None,
    since: Annotated[str | None, typer.Option(help="Such as 2026-11-24T09:00:00Z, or a day.")] = None,
    until: Annotated[str | None, typer.Option(help="Before this moment.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many entries, newest first.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on each line.")] = False,
) -> None:
    """Show the newest entries of the audit trail."""
    if context.invoked_subcommand is not None:
        return
    from carillon.cli.audit import Wanted, show  # noqa: PLC0415 - see above

    raise typer.Exit(show(Wanted(actor, action, subject, since, until, limit), as_json=as_json))


@audit.command()
def verify(
    noted: Annotated[str | None, typer.Option(help="NUMBER:HASH of an entry that was noted elsewhere.")] = None,
) -> None:
    """Follow the chain of the audit trail from its first entry; 1 when an entry was changed, moved or lost."""
    from carillon.cli.audit import check  # noqa: PLC0415 - see above

    raise typer.Exit(check(noted))


saga = typer.Typer(no_args_is_help=True, help="Sagas: steps that are undone when one of them fails.")
app.add_typer(saga, name="saga")


@saga.command(name="check")
def check_saga(
    scenario: Annotated[str, typer.Argument(metavar="MODULE:FUNCTION", help="Such as `orders.scenarios:payment`.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object, with every violation.")] = False,
) -> None:
    """Let each step of a saga fail in each way, and its worker die at each moment; 1 when not all or nothing is left.

    FUNCTION makes a `carillon.testing.crashes.Scenario`. All of it happens in memory; no server is asked.
    """
    from carillon.cli.saga import run  # noqa: PLC0415 - see above

    raise typer.Exit(run(scenario, as_json=as_json))


app.add_typer(runs, name="runs")
app.add_typer(workflows, name="workflows")
app.command()(approvals)
app.add_typer(acting.dead_letters, name="dead-letters")
app.add_typer(acting.keys, name="keys")
for command in (acting.submit, acting.bulk, acting.pause, acting.resume, acting.holds):
    app.command()(command)


@app.command()
def tasks(
    *,
    domain: Annotated[str | None, typer.Option(help="The name of a domain.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on each line, with all of it.")] = False,
) -> None:
    """Show which tasks there are, and what limits each of them and its domain."""
    from carillon.cli.shown_tasks import show  # noqa: PLC0415 - see above

    raise typer.Exit(show(domain, as_json=as_json))


@app.command()
def stats(
    *,
    since: Annotated[str | None, typer.Option(help="Ended at or after; a day ago if unsaid.")] = None,
    until: Annotated[str | None, typer.Option(help="Ended before; now if unsaid. At most 31 days later.")] = None,
    task: Annotated[str | None, typer.Option(help="The whole name of a task.")] = None,
    domain: Annotated[str | None, typer.Option(help="The name of a domain.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object, with minutes or hours.")] = False,
) -> None:
    """Show how much ended, how long it took and waited, and how often it failed, by task."""
    from carillon.cli.stats import Asked, show  # noqa: PLC0415 - see above

    raise typer.Exit(show(Asked(since, until, task, domain), as_json=as_json))


@app.command()
def tour() -> None:
    """Send one event into the running platform and watch what it sets off (CARILLON_URL, CARILLON_KEY)."""
    from carillon.cli.tour import run  # noqa: PLC0415 - see above

    raise typer.Exit(run())
