"""Reading the ledgers of a scenario into evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos import journal
from chaos.evidence import TERMINAL, Answer, Depth, Effect, End, Mark, RunRow, Submit
from chaos.servers import Servers, fetch

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from chaos.settings import ChaosSettings

RUNS = "select id, state, task, attempt from carillon.runs"
ENDS = "select run_id, state, extract(epoch from finished_at)::float8 as finished_at from chaos.ends"
UNENDED = "select count(*) from carillon.runs where not state = any($1::text[])"
#: Runs that said an event.
SAID = "select count(*) from carillon.runs where task like '%.chime' and state = 'completed'"
ANSWERED = "select count(distinct answers) from effects"


def marks(lines: Iterable[dict[str, Any]]) -> list[Mark]:
    """What tasks wrote about themselves."""
    return [Mark(x["what"], x["run"], x["ticket"], x["attempt"], x["pid"], x["at"], x.get("domain", "")) for x in lines]


def asked(settings: ChaosSettings) -> tuple[list[Submit], list[Answer]]:
    """What the client wrote."""
    lines = journal.read(settings.clients)
    submits = [Submit(x["ticket"], x["task"], x["run"], x["at"]) for x in lines if x["what"] == "submit"]
    answers = [Answer(x["ticket"], x["status"], x["run"], x["at"]) for x in lines if x["what"] == "answer"]
    return submits, answers


async def runs(url: str) -> list[RunRow]:
    """What Carillon says."""
    return [RunRow(str(row["id"]), row["state"], row["task"], row["attempt"]) for row in await fetch(url, RUNS)]


async def ends(url: str) -> list[End]:
    """What our trigger saw."""
    return [End(str(row["run_id"]), row["state"], row["finished_at"] or 0.0) for row in await fetch(url, ENDS)]


async def effects(url: str) -> tuple[list[Effect], list[tuple[str, int]]]:
    """What was done, and every try."""
    rows = await fetch(url, "select run_id, answers from effects")
    done = [Effect(str(row["run_id"]), None if row["answers"] is None else str(row["answers"])) for row in rows]
    tries = await fetch(url, "select run_id, attempt from effect_attempts")
    return done, [(str(row["run_id"]), row["attempt"]) for row in tries]


async def depths(servers: Servers, prefix: str) -> dict[str, Depth]:
    """What lies in the queues of one installation."""
    listed = await servers.ctl("list_queues", "name", "messages_ready", "messages_unacknowledged")
    found = {}
    for line in listed.splitlines():
        name, *numbers = line.split("\t")
        if name.startswith(f"{prefix}.") and len(numbers) == 2 and all(n.isdigit() for n in numbers):
            found[name] = Depth(int(numbers[0]), int(numbers[1]))
    return found


async def all_recovered(ledger_url: str) -> bool:
    """Whether every run that was at a worker which died has ended since."""
    (left,) = await fetch(ledger_url, "select count(*) from carillon.runs_live where lost > 0")
    return not left[0]


async def all_ended(ledger_url: str, effects_url: str) -> bool:
    """Whether no run is left to end, and no event to be answered."""
    (unended,) = await fetch(ledger_url, UNENDED, sorted(TERMINAL))
    if unended[0]:
        return False
    (said,), (answered,) = await fetch(ledger_url, SAID), await fetch(effects_url, ANSWERED)
    return bool(said[0] <= answered[0])
