"""`python -m notifications.callback_secret ORIGIN`: the secret with which one receiver checks callbacks."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

import typer

from carillon.bounds import CALLBACK_URL
from carillon.callbacks import origin_of
from carillon.cli.asking import asking
from carillon.cli.exits import OK, in_one_sentence
from carillon.errors import ConfigurationError
from carillon.ledger.audit import Actor, account
from notifications.callbacks import CallbackSecrets


def command(
    receiver: Annotated[str, typer.Argument(help="Its address or origin, such as https://shop.example.")],
    *,
    replace: Annotated[bool, typer.Option(help="Give all receivers new secrets; old ones hold 7 days.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why, for the audit trail.")] = None,
) -> None:
    """Print the secret with which a receiver of callbacks checks their signatures; every origin has its own."""
    raise typer.Exit(in_one_sentence(lambda: asyncio.run(_print(receiver, replace=replace, reason=reason))))


async def _print(receiver: str, *, replace: bool, reason: str | None) -> int:
    if not re.fullmatch(CALLBACK_URL, receiver):
        message = "The receiver is no web address; write it as https://host, with its port if that is unusual."
        raise ConfigurationError(message)
    async with asking("secret of callbacks") as engine:
        secrets = CallbackSecrets(engine)
        if replace:
            await secrets.replace(Actor.process("notifications.callback_secret", account()), reason)
        typer.echo((await secrets.of(origin_of(receiver)))[0])
    return OK


if __name__ == "__main__":
    typer.run(command)
