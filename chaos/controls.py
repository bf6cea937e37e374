"""Negative controls: one defence taken away, and a scenario in which the checker has to notice it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos.scenarios.broker import wipe_broker
from chaos.scenarios.stores import restart_postgres
from chaos.scenarios.workers import freeze_worker, kill_workers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chaos.stage import Stage

#: Nothing in the load but rings: what is found is the missing defence, and not what else the mutation cannot do.
PLAIN: dict[str, Any] = {"chime": 0, "crack": 0, "falter": 0, "expired": 0}


@dataclass(frozen=True)
class Control:
    """A mutation, where it is played, and what the checker finds; any of `finds` will do."""

    mutation: str
    title: str
    play: Callable[..., Awaitable[None]]
    transport: str
    finds: frozenset[str]
    alone: bool = False
    long: float = 0.05

    @property
    def name(self) -> str:
        """What `--only` calls it."""
        return f"control:{self.mutation}"

    async def run(self, stage: Stage) -> None:
        """Play it with the mutation in every process of the scenario."""
        stage.crew.env = {**stage.crew.env, "CHAOS_MUTATION": self.mutation}
        await self.play(stage, **PLAIN, long=self.long)


CONTROLS = (
    Control(
        "acknowledge-first",
        "acknowledged on receive, started without the ledger; workers are killed",
        kill_workers,
        "rabbitmq",
        frozenset({"DUP_EFFECT", "STUCK", "LOST"}),
        # So that each death meets runs in their middle.
        long=0.5,
    ),
    Control(
        "publish-carelessly",
        "published without confirm and without the sweeper; the broker is wiped",
        wipe_broker,
        "rabbitmq",
        frozenset({"STUCK", "LOST"}),
    ),
    Control(
        "no-fence",
        "starts and ends whatever comes; a worker is frozen and goes on",
        freeze_worker,
        "postgres",
        frozenset({"DOUBLE_TERMINAL", "DUP_EFFECT"}),
    ),
    Control(
        "answer-first",
        "answered before the row is committed; PostgreSQL is restarted",
        restart_postgres,
        "postgres",
        frozenset({"LOST"}),
        alone=True,
    ),
)
