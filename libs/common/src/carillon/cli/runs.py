"""`carillon runs`: the subcommands about runs. Showing is in `cli/shown_runs.py`, acting in `cli/steer.py`."""

from __future__ import annotations

from typing import Annotated

import typer

RunId = Annotated[str, typer.Argument(help="The id of the run.")]
Reason = Annotated[str | None, typer.Option(help="Why; the audit trail keeps it.")]

runs = typer.Typer(help="What ran, runs and waits; `carillon runs show ID` tells all of one run.")


@runs.callback(invoke_without_command=True)
def found(
    context: typer.Context,
    *,
    state: Annotated[list[str] | None, typer.Option(help="One of these states; may be repeated.")] = None,
    task: Annotated[str | None, typer.Option(help="The whole name of a task.")] = None,
    domain: Annotated[str | None, typer.Option(help="The name of a domain.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="NAME:VALUE; may be repeated, all must hold.")] = None,
    arg: Annotated[list[str] | None, typer.Option(help="PATH:VALUE, such as customer.id:17; may be repeated.")] = None,
    since: Annotated[str | None, typer.Option(help="Accepted at or after 2026-11-24T09:00:00Z, or a day.")] = None,
    until: Annotated[str | None, typer.Option(help="Accepted before.")] = None,
    finished_since: Annotated[str | None, typer.Option(help="Ended at or after.")] = None,
    finished_until: Annotated[str | None, typer.Option(help="Ended before.")] = None,
    longer: Annotated[float | None, typer.Option(min=0, help="Executed for at least so many seconds.")] = None,
    shorter: Annotated[float | None, typer.Option(min=0, help="Executed for less than so many seconds.")] = None,
    worker: Annotated[str | None, typer.Option(help="The id of a worker.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Failed with errors of this kind.")] = None,
    parent: Annotated[str | None, typer.Option(help="Submitted by this run.")] = None,
    unique_key: Annotated[str | None, typer.Option(help="Submitted with this unique key.")] = None,
    replay_of: Annotated[str | None, typer.Option(help="Repeats this run.")] = None,
    priority: Annotated[str | None, typer.Option(help="low, normal, high or urgent.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many runs, newest first.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on each line.")] = False,
) -> None:
    """Show runs, newest first; what is given must all hold."""
    if context.invoked_subcommand is not None:
        return
    from carillon.cli.shown_runs import find  # noqa: PLC0415 - a command that is not used costs nothing

    typed = {
        "state": state, "task": task, "domain": domain, "label": label, "arg": arg, "since": since, "until": until,
        "finished_since": finished_since, "finished_until": finished_until, "longer": longer, "shorter": shorter,
        "worker": worker, "fingerprint": fingerprint, "parent": parent, "unique_key": unique_key,
        "replay_of": replay_of, "priority": priority,
    }  # fmt: skip
    words = {name: value for name, value in typed.items() if value is not None}
    raise typer.Exit(find(words, limit=limit, as_json=as_json))


@runs.command()
def show(
    run: RunId,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Show all that is known of one run: details, progress, attempts, history."""
    from carillon.cli.shown_runs import show_one  # noqa: PLC0415 - a command that is not used costs nothing

    raise typer.Exit(show_one(run, as_json=as_json))


@runs.command()
def cancel(run: RunId, *, reason: Reason = None) -> None:
    """Cancel a run and all that it submitted."""
    _steer("cancel", run, reason)


@runs.command()
def pause(run: RunId, *, reason: Reason = None) -> None:
    """Let a run that waits not start until it is resumed."""
    _steer("pause", run, reason)


@runs.command()
def resume(run: RunId, *, reason: Reason = None) -> None:
    """Let a paused run go on."""
    _steer("resume", run, reason)


@runs.command()
def settle(run: RunId, *, reason: Reason = None) -> None:
    """Say of a failed run that nothing more has to be done about it."""
    _steer("settle", run, reason)


@runs.command()
def replay(
    run: RunId,
    *,
    args: Annotated[str | None, typer.Option(help="Other arguments, as a JSON object.")] = None,
    reason: Reason = None,
) -> None:
    """Run what failed or was cancelled again, as a run of its own."""
    from carillon.cli.steer import replay_run  # noqa: PLC0415 - a command that is not used costs nothing

    raise typer.Exit(replay_run(run, args, reason))


def _steer(word: str, run: str, reason: str | None) -> None:
    from carillon.cli.steer import steer_run  # noqa: PLC0415 - a command that is not used costs nothing

    raise typer.Exit(steer_run(word, run, reason))
