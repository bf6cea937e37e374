"""The subcommands that act: each asks the gateway with the operator's key (CARILLON_URL, CARILLON_KEY)."""

from __future__ import annotations

from typing import Annotated

import typer

# Each command imports its module when it is used, as in `cli/commands.py`.
Reason = Annotated[str | None, typer.Option(help="Why; the audit trail keeps it.")]
OfTask = Annotated[str | None, typer.Option(help="Only the runs of this task.")]
Fingerprint = Annotated[str, typer.Argument(help="As `carillon dead-letters` lists it.")]
Rate = Annotated[float, typer.Option(min=0.01, max=10_000, help="How many start each second.")]
Canary = Annotated[bool, typer.Option(help="Whether one goes ahead of the others.")]


def pause(name: Annotated[str, typer.Argument(help="A domain, or a task.")], *, reason: Reason = None) -> None:
    """Let nothing of a domain or task start until it is resumed; what executes goes on."""
    from carillon.cli.steer import steer_queue  # noqa: PLC0415 - see above

    raise typer.Exit(steer_queue("pause", name, reason))


def resume(name: Annotated[str, typer.Argument(help="A domain, or a task.")], *, reason: Reason = None) -> None:
    """Let a paused domain or task start its runs again."""
    from carillon.cli.steer import steer_queue  # noqa: PLC0415 - see above

    raise typer.Exit(steer_queue("resume", name, reason))


def holds() -> None:
    """Show which domains and tasks are paused, by whom and why."""
    from carillon.cli.steer import show_holds  # noqa: PLC0415 - see above

    raise typer.Exit(show_holds())


def bulk(
    action: Annotated[str, typer.Argument(help="cancel, replay, settle or delete.")],
    *,
    filters: Annotated[
        list[str], typer.Option("--filter", help="NAME=VALUE, as `carillon runs` has them; all must hold.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    rate: Rate = 50,
    canary: Canary = True,
    reason: Reason = None,
) -> None:
    """Act upon all runs that fit: first see how many and which, then agree."""
    from carillon.cli.bulk import run  # noqa: PLC0415 - see above

    raise typer.Exit(run(action, filters, {"rate": rate, "canary": canary, "reason": reason}, yes=yes))


def submit(
    task: Annotated[str, typer.Argument(help="A task, or a domain, which means its default task.")],
    args: Annotated[str, typer.Argument(help="Its arguments, as a JSON object.")] = "{}",
    *,
    priority: Annotated[str | None, typer.Option(help="low, normal, high or urgent.")] = None,
    delay: Annotated[float | None, typer.Option(help="Seconds before it may start.")] = None,
    run_at: Annotated[str | None, typer.Option(help="Not before, such as 2026-11-24T09:00:00Z.")] = None,
    expires_in: Annotated[float | None, typer.Option(help="Seconds after which it is not started any more.")] = None,
    expires_at: Annotated[str | None, typer.Option(help="The moment after which it is not started any more.")] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds after which it is ended.")] = None,
    deadline_at: Annotated[str | None, typer.Option(help="The moment by which it is ended.")] = None,
    after: Annotated[list[str] | None, typer.Option(help="Wait for this run; may be repeated.")] = None,
    when: Annotated[str | None, typer.Option(help="All of these `succeeded` or `ended`, or `any` of them.")] = None,
    otherwise: Annotated[str | None, typer.Option(help="cancel or run, when that cannot be.")] = None,
    after_delay: Annotated[float | None, typer.Option(help="Seconds that it still waits once it may go.")] = None,
    unique: Annotated[str | None, typer.Option(help="One run at a time for this key.")] = None,
    unique_args: Annotated[bool, typer.Option("--unique-args", help="One run at a time for these arguments.")] = False,
    until: Annotated[str | None, typer.Option(help="The key is taken until that run has `started` or `ended`.")] = None,
    window: Annotated[float | None, typer.Option(help="Seconds for which the key is taken, whatever happens.")] = None,
    on_conflict: Annotated[str | None, typer.Option(help="keep, replace or reject.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="NAME:VALUE; may be repeated.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key and arguments are one run.")] = None,
    callback_url: Annotated[str | None, typer.Option(help="Is told of the end.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until it has ended, and print its result.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to stay at most.")] = 300,
) -> None:
    """Submit one run and print its id."""
    from carillon.cli.exits import in_one_sentence  # noqa: PLC0415 - see above
    from carillon.cli.submit import options_of, run  # noqa: PLC0415 - see above

    typed = {
        "priority": priority, "delay": delay, "run_at": run_at, "expires_in": expires_in, "expires_at": expires_at,
        "deadline": deadline, "deadline_at": deadline_at, "label": label, "idempotency_key": idempotency_key,
        "callback_url": callback_url,
    }  # fmt: skip
    need = {"runs": after or None, "when": when, "otherwise": otherwise, "delay": after_delay}
    one = {"key": unique, "until": until, "window": window, "on_conflict": on_conflict}

    def submitted() -> int:
        options = options_of(typed, need, one, by_args=unique_args)
        return run(task, args, options, wait=timeout if wait else None)

    raise typer.Exit(in_one_sentence(submitted))


dead_letters = typer.Typer(help="What needs a person: failed runs and unreadable messages, by what went wrong.")


@dead_letters.callback(invoke_without_command=True)
def groups(
    context: typer.Context,
    *,
    domain: Annotated[str | None, typer.Option(help="The name of a domain.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=400, help="How many groups of each kind.")] = 50,
) -> None:
    """Show failed runs and unreadable messages, grouped by what went wrong."""
    if context.invoked_subcommand is not None:
        return
    from carillon.cli.steer import show_groups  # noqa: PLC0415 - see above

    raise typer.Exit(show_groups(domain, limit))


@dead_letters.command()
def show(
    fingerprint: Fingerprint,
    *,
    task: OfTask = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 20,
) -> None:
    """Show the runs or messages of one group."""
    from carillon.cli.steer import show_group  # noqa: PLC0415 - see above

    raise typer.Exit(show_group(fingerprint, task, limit))


@dead_letters.command()
def replay(
    fingerprint: Fingerprint, *, task: OfTask = None, rate: Rate = 50, canary: Canary = True, reason: Reason = None
) -> None:
    """Run the failed runs of a group again: one goes ahead, the others follow at a rate when it has completed."""
    from carillon.cli.steer import replay_group  # noqa: PLC0415 - see above

    raise typer.Exit(replay_group(fingerprint, task, rate, canary=canary, reason=reason))


@dead_letters.command()
def discard(fingerprint: Fingerprint, *, task: OfTask = None, reason: Reason = None) -> None:
    """Be done with a group: its runs stay in the history, its messages are thrown away."""
    from carillon.cli.steer import discard_group  # noqa: PLC0415 - see above

    raise typer.Exit(discard_group(fingerprint, task, reason))


@dead_letters.command()
def redeliver(
    what: Annotated[str, typer.Argument(help="The id of a message, or the fingerprint of a group of them.")],
    *,
    body: Annotated[str | None, typer.Option(help="A mended body, of one message.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="Of a group, how many at most.")] = None,
    reason: Reason = None,
) -> None:
    """Hand a message to its queue again, perhaps mended, or those of a group, oldest first.

    Of a group try one first (--limit 1): what still cannot be read comes back.
    """
    from carillon.cli import steer  # noqa: PLC0415 - see above

    raise typer.Exit(steer.redeliver(what, body, limit, reason))


keys = typer.Typer(help="Who may act: `carillon keys create NAME` prints a new key, `revoke NAME` ends one.")


@keys.callback(invoke_without_command=True)
def known(context: typer.Context) -> None:
    """Show the names of all keys, when each was made, and when it was revoked."""
    if context.invoked_subcommand is not None:
        return
    from carillon.cli.keys import show_keys  # noqa: PLC0415 - see above

    raise typer.Exit(show_keys())


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is: the audit trail calls its holder so.")],
    *,
    reason: Reason = None,
) -> None:
    """Make a key and print it, this once: nobody can read it again."""
    from carillon.cli.keys import create_key  # noqa: PLC0415 - see above

    raise typer.Exit(create_key(name, reason))


@keys.command()
def revoke(name: Annotated[str, typer.Argument(help="As `carillon keys` lists it.")], *, reason: Reason = None) -> None:
    """Let a key open nothing any more, within 5 s at every gateway."""
    from carillon.cli.keys import revoke_key  # noqa: PLC0415 - see above

    raise typer.Exit(revoke_key(name, reason))
