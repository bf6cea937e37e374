"""`carillon workflows`: the subcommands about workflows, and `carillon approvals`."""

from __future__ import annotations

from typing import Annotated

import typer

WorkflowId = Annotated[str, typer.Argument(help="The id of the workflow's run.")]
Step = Annotated[int | None, typer.Option(min=1, help="Its number; may be left out where it asks one thing only.")]
Reason = Annotated[str | None, typer.Option(help="Why; the workflow is told, and the audit trail keeps it.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on each line.")]

workflows = typer.Typer(
    no_args_is_help=True, help="Work of many steps: how far it is, what it waits for, and deciding what it asks."
)


@workflows.command(name="list")
def list_(
    *,
    state: Annotated[list[str] | None, typer.Option(help="One of these states; may be repeated.")] = None,
    task: Annotated[str | None, typer.Option(help="The whole name of a workflow.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show workflows, newest first."""
    from carillon.cli.shown_workflows import find  # noqa: PLC0415 - a command that is not used costs nothing

    typed = {"state": state, "task": task}
    raise typer.Exit(find({k: v for k, v in typed.items() if v is not None}, limit=limit, as_json=as_json))


@workflows.command()
def show(
    workflow: WorkflowId,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object, with every step.")] = False,
) -> None:
    """Draw the steps of a workflow: how each ended or what it waits for, and what it came after."""
    from carillon.cli.shown_workflows import show_one  # noqa: PLC0415 - a command that is not used costs nothing

    raise typer.Exit(show_one(workflow, as_json=as_json))


@workflows.command()
def approve(workflow: WorkflowId, *, step: Step = None, reason: Reason = None) -> None:
    """Approve what a workflow asks; of a repair, have what failed tried again."""
    _decide(workflow, step, reason, approve=True)


@workflows.command()
def refuse(workflow: WorkflowId, *, step: Step = None, reason: Reason = None) -> None:
    """Refuse what a workflow asks; of a repair, say that it was done by hand."""
    _decide(workflow, step, reason, approve=False)


@workflows.command()
def fork(
    workflow: WorkflowId,
    *,
    step: Annotated[
        int | None, typer.Option(min=1, help="The first step that is done again; else the first that did not go well.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; the audit trail keeps it.")] = None,
) -> None:
    """Run a workflow that has ended again from a step on, as a run of its own."""
    from carillon.cli.decisions import fork as fork_from  # noqa: PLC0415 - a command that is not used costs nothing

    raise typer.Exit(fork_from(workflow, step, reason))


def approvals(
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, those first that wait longest.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show what workflows ask people: approvals, and repairs of what failed for good."""
    from carillon.cli.decisions import show_open  # noqa: PLC0415 - a command that is not used costs nothing

    raise typer.Exit(show_open(limit, as_json=as_json))


def _decide(workflow: str, step: int | None, reason: str | None, *, approve: bool) -> None:
    from carillon.cli.decisions import decide  # noqa: PLC0415 - a command that is not used costs nothing

    raise typer.Exit(decide(workflow, step, reason, approve=approve))
