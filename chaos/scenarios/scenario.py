"""What a scenario is: a name, a sentence, and a play on a stage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chaos.stage import Stage

RABBITMQ = ("rabbitmq",)
POSTGRES = ("postgres",)
BOTH = ("rabbitmq", "postgres")


@dataclass(frozen=True)
class Scenario:
    """One row of the matrix. `play` puts the faults in and counts them in `stage.faults`."""

    name: str
    #: What happens, for people.
    title: str
    play: Callable[[Stage], Awaitable[None]]
    transports: tuple[str, ...] = BOTH
    #: The transports on which the quick profile plays it.
    quick: tuple[str, ...] = ()
    #: Whether it disturbs the server of the ledgers, so that nothing else may be played meanwhile.
    alone: bool = False
