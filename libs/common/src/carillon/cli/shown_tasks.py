"""`carillon tasks`: what the catalogue has of tasks. It asks PostgreSQL itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

import orjson

from carillon.cli.asking import asking
from carillon.cli.exits import OK, in_one_sentence
from carillon.cli.tables import print_table
from carillon.ledger.catalogue import Catalogue, Row
from carillon.ledger.records import Priority
from carillon.limits import in_words

CATALOGUE = "catalogue"
COLUMNS = ("task", "hears", "timeout_s", "attempts", "priority", "limits")
#: What is told of a task as JSON.
TOLD = ("name", "domain", "doc", "schema", "policy", "hears", "says", "is_default")


def show(domain: str | None, *, as_json: bool) -> int:
    """Show the tasks of all domains, or of one, with the limits of each and of its domain."""
    return in_one_sentence(lambda: asyncio.run(_show(domain, as_json=as_json)))


async def _show(domain: str | None, *, as_json: bool) -> int:
    async with asking(CATALOGUE) as engine:
        catalogue = Catalogue(engine)
        rows = await (catalogue.tasks() if domain is None else catalogue.tasks_of(domain))
        of_domain = {row["name"]: row["concurrency"] for row in await catalogue.domains()}
    if as_json:
        for row in rows:
            told = {name: row[name] for name in TOLD} | {"domain_limit": of_domain.get(row["domain"])}
            sys.stdout.write(f"{orjson.dumps(told, default=str).decode()}\n")
    else:
        print_table(COLUMNS, (_line(row, of_domain) for row in rows), "No task.")
    return OK


def _line(row: Row, of_domain: Mapping[str, int | None]) -> list[Any]:
    policy = row["policy"]
    limits = [in_words(policy["limits"])] if "limits" in policy else []
    if (limit := of_domain.get(row["domain"])) is not None:
        limits.append(f"all of {row['domain']} at most {limit:,} at once")
    return [
        row["name"], row["hears"], f"{policy['timeout_seconds']:g}", policy["attempts"],
        Priority(policy.get("priority", Priority.NORMAL)).name.lower(), "; ".join(limits),
    ]  # fmt: skip
