"""The subcommands, each a sentence and a call; the modules they call are imported when they are used, not before."""

from __future__ import annotations

from typing import Annotated

import typer

# Each command imports its module when it is used: `carillon serve` need not load the doctor.
app = typer.Typer(
    name="carillon",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A platform for tasks and events: one service for each domain, a clock, and a keyboard.",
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
def doctor() -> None:
    """Examine connections, topology, versions, tools, the clock and the services, and say what to do."""
    from carillon.cli.doctor import run  # noqa: PLC0415 - see above

    raise typer.Exit(run())


@app.command()
def tour() -> None:
    """Send one event into the running platform and watch what it sets off (CARILLON_URL, CARILLON_KEY)."""
    from carillon.cli.tour import run  # noqa: PLC0415 - see above

    raise typer.Exit(run())
