"""`carillon keys`: who may act on a running platform."""

from __future__ import annotations

from carillon.cli.gateway import Gateway, step
from carillon.cli.steer import asked, say
from carillon.cli.tables import print_table


def show_keys() -> int:
    """Show every key, also what was revoked."""

    async def show(gateway: Gateway) -> None:
        names = ("name", "created_at", "revoked_at")
        found = (await gateway.get("keys"))["keys"]
        print_table(names, ([key[name] for name in names] for key in found), "No key.")

    return asked(show)


def create_key(name: str, reason: str | None) -> int:
    """Make a key; its secret alone goes to the output, so that it can go into a file."""

    async def create(gateway: Gateway) -> None:
        say((await gateway.post("keys", {"name": name, "reason": reason}))["key"])

    return asked(create)


def revoke_key(name: str, reason: str | None) -> int:
    """Let a key open nothing any more."""

    async def revoke(gateway: Gateway) -> None:
        answer = await gateway.post(f"keys/{step(name)}/revoke", {"reason": reason})
        say(f"{name} opens nothing any more{'' if answer['changed'] else ', as before'}.")

    return asked(revoke)
