"""Doing effects once: the first call's result is kept, and given to whoever comes with its key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar, cast

from carillon.bounds import check_key
from carillon.errors import EffectConflictError, EffectInFlightError
from carillon.ids import new_id
from carillon.ledger.effects import Kept, Lease
from carillon.policies.asking import NO_ANSWER, asked
from carillon.policies.circuit import SLACK
from carillon.policies.effect import Effect
from carillon.policies.values import fingerprint, kept_json, read

if TYPE_CHECKING:
    from carillon.platform import Platform
    from carillon.telemetry.metrics import Metrics

Result = TypeVar("Result")
Params = ParamSpec("Params")


class Once(Generic[Result]):
    """One effect under one key, to be called."""

    def __init__(self, platform: Platform, metrics: Metrics, effect: Effect[Result], key: str) -> None:
        check_key("key", key)
        self._effects = platform.ledger.effects
        self._metrics = metrics
        self._effect = effect
        self._key = key

    async def __call__(
        self, function: Callable[Params, Awaitable[Result]], *args: Params.args, **kwargs: Params.kwargs
    ) -> Result:
        """The function's result, of this call or of the first one.

        Raises `EffectConflictError` where the first had other arguments, `EffectInFlightError` while it is under way,
        and what the ledger's client raises where that does not answer; then nothing was called, unless it does not
        answer when the result is to be kept.
        """
        arguments = fingerprint(f"the effect {self._effect.name}", args, kwargs)
        owner = new_id()
        lease = Lease(self._effect.name, self._key, arguments, owner)
        for_ = self._effect.timeout + SLACK
        kept = await asked(
            self._effects.begin(lease, for_, self._effect.keep), "effect not begun", effect=self._effect.name
        )
        if kept is not None:
            return self._known(kept, arguments)
        try:
            async with asyncio.timeout(self._effect.timeout.total_seconds()):
                returned = await function(*args, **kwargs)
        except BaseException:
            self._count("failed")
            with suppress(*NO_ANSWER):
                await asked(self._effects.give_back(lease), "effect not given back", effect=self._effect.name)
            raise
        return await self._keep(lease, returned)

    async def _keep(self, lease: Lease, returned: Result) -> Result:
        result = kept_json(f"the effect {lease.name}", returned)
        keeping = self._effects.end(lease, result, self._effect.keep)
        if not await asked(keeping, "effect not kept", effect=lease.name):
            self._count("overtaken")
            raise self._in_flight(timedelta(seconds=1))
        self._count("called")
        return self._read(result)

    def _known(self, kept: Kept, arguments: str) -> Result:
        if kept.arguments != arguments:
            self._count("conflict")
            message = (
                f"the key {self._key!r} of the effect {self._effect.name} was used before with other arguments; use a "
                "key of its own for each set of arguments"
            )
            raise EffectConflictError(message)
        if kept.result is None:
            self._count("in_flight")
            raise self._in_flight(max(kept.left, timedelta(seconds=1)))
        self._count("known")
        return self._read(kept.result)

    def _in_flight(self, left: timedelta) -> EffectInFlightError:
        message = (
            f"the effect {self._effect.name} is under way elsewhere for the key {self._key!r}; come back for its "
            f"result in {left.total_seconds():.1f} s"
        )
        return EffectInFlightError(message, retry_after=left)

    def _read(self, result: str) -> Result:
        return cast(Result, read(f"the effect {self._effect.name}", self._effect.returns, result))

    def _count(self, outcome: str) -> None:
        self._metrics.effects.labels(self._effect.name, outcome).inc()
