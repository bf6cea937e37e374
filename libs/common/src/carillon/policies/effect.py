"""Declaring an effect that must not happen twice: for how long its result is kept under its key."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from carillon.policies.bounds import check_name, check_span
from carillon.policies.values import check_type

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Effect(Generic[Result]):
    """Something that is done once for each key, whoever asks: `CHARGE = Effect("charge", returns=dict)`.

    ```python
    payment = await policies.idempotent(CHARGE, key=order)(client.charge, order, 12_00)
    ```

    The first call's result is kept for `keep`, and given to later calls with that key. A call that raises keeps
    nothing, and the next one calls again. So does the next one after a worker died in the middle, five seconds after
    the call's `timeout` at the earliest: whether the other side did it, nobody here can know. Hand the key on to
    whoever has such keys of their own.
    """

    name: str
    #: What the function returns: JSON types, a dataclass or a pydantic model. Of the first call too, it is what JSON
    #: makes of it, at most 64 KiB.
    returns: type[Result]
    _: KW_ONLY
    keep: timedelta = timedelta(days=7)
    #: A call that takes longer is ended with a `TimeoutError`.
    timeout: timedelta = timedelta(minutes=1)

    def __post_init__(self) -> None:
        """Refuse an effect that could not be kept; raises `ConfigurationError`."""
        check_name("effect", self.name)
        for name in ("keep", "timeout"):
            check_span(f"the effect {self.name}", name, getattr(self, name))
        check_type(f"the effect {self.name}", self.returns)
