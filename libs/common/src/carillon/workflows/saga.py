"""Sagas: steps that are undone in reverse order when one of them fails.

What may have happened is undone, and nothing else: a step that was begun and whose outcome is not known is undone like
one that completed; one that never started, or whose only attempt said with a `PermanentError` that nothing was done, is
not. A step that is under way when the saga is left is stopped, and has ended before the first is undone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from carillon.errors import OutsideWorkflowError, StepFailedError

if TYPE_CHECKING:
    from carillon.workflows.flow import Workflow

#: Makes a step.
Begin = Callable[[], "asyncio.Future[Any]"]
#: Characters of an error that an operator is told.
MOST_TOLD = 300


@dataclass(frozen=True, slots=True)
class _Begun:
    """A step that may have had its effect, and what takes it back."""

    name: str
    step: asyncio.Future[Any]
    undo: Begin | None
    undo_name: str


class Saga:
    """A block of steps of which either all take effect, or none does in the end.

    ```python
    async with flow.saga() as saga:
        await saga.step(reserve_inventory, order, undo=release_inventory)
        await saga.step(charge_payment, order, amount, undo=refund_payment)
        saga.pivot()
        await saga.step(create_shipment, order)
    ```

    An error, a timeout or a cancellation that leaves the block has the steps undone, the last one first, and goes on
    then. Each undoing is a step of its own, retried by the policy of its task; when it fails for good, the workflow
    waits for an operator, who has it tried again or says that it was done by hand, and the others wait. Steps and what
    undoes them may be executed more than once: they have to be safe to run twice, and undoing what did not happen has
    to do nothing.
    """

    def __init__(self, flow: Workflow) -> None:
        self._flow = flow
        self._begun: list[_Begun] = []
        self._is_entered = False
        self._has_turned = False
        #: A cancellation that came while nothing might be interrupted.
        self._was_cancelled = False
        #: The tasks that have undone steps, in order.
        self.compensations: list[str] = []

    async def __aenter__(self) -> Self:
        """Begin."""
        self._is_entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Undo what may have happened, if an error leaves the block before the point of no return."""
        self._is_entered = False
        if kind is not None and issubclass(kind, GeneratorExit):
            # The workflow waits, and its code is given up; it will be executed again.
            return
        if error is not None and not self._has_turned:
            for begun in reversed(self._begun):
                await self._take_back(begun)
        if self._was_cancelled:
            raise asyncio.CancelledError from error

    async def step(self, task: Any, *args: Any, undo: Any = None, **kwargs: Any) -> Any:
        """Await a step, as `flow.step` does; `undo` is the task that takes it back, given the same arguments.

        Where it takes others, `undo` is a function without parameters that makes the step: `lambda: flow.step(...)`.
        Raises `StepFailedError`; beyond the point of no return it does not: there an operator has the step tried again,
        or says that it was done by hand, and then the result is None.
        """
        if not self._is_entered:
            message = "steps of a saga belong into its block: `async with flow.saga() as saga:`"
            raise OutsideWorkflowError(message)
        name = _name(task)

        def begin() -> asyncio.Future[Any]:
            return self._flow.step(task, *args, **kwargs)

        if self._has_turned:
            return await self._until_done(begin, f"{name}, which comes after the point of no return,")
        step = begin()
        begun = _Begun(name, step, None if undo is None else self._undoing(undo, args, kwargs), _name(undo))
        self._begun.append(begun)
        try:
            return await self._end_of(step)
        finally:
            if step.done() and isinstance(error := step.exception(), StepFailedError) and not error.may_have_effect:
                self._begun.remove(begun)

    def pivot(self) -> None:
        """From here on nothing is undone any more: what follows is done, however long that takes."""
        self._has_turned = True

    def _undoing(self, undo: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Begin:
        if hasattr(undo, "task_name"):
            return lambda: self._flow.step(undo, *args, **kwargs)
        return undo  # type: ignore[no-any-return] # a function that makes a step

    async def _take_back(self, begun: _Begun) -> None:
        if (undo := begun.undo) is not None:

            def begin() -> asyncio.Future[Any]:
                with self._flow.undoing(begun.step):
                    return undo()

            await self._until_done(begin, f"{begun.undo_name}, which takes back {begun.name},")
            self.compensations.append(begun.undo_name)

    async def _until_done(self, begin: Begin, what: str) -> Any:
        while True:
            try:
                return await self._firmly(begin())
            except StepFailedError as error:
                told = str(error)[:MOST_TOLD]
                decision = await self._firmly(self._flow.repair(f"{what} failed. Try again? {told}"))
                if not decision.approved:
                    return None

    async def _end_of(self, step: asyncio.Future[Any]) -> Any:
        """The result of a step. It has ended when this returns or raises, also where that is a cancellation."""
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            if not step.done():
                self._flow.stop(step)
                await self._ended(step)
            raise

    async def _firmly(self, awaited: asyncio.Future[Any]) -> Any:
        """The result of what nothing may interrupt."""
        await self._ended(awaited)
        return awaited.result()

    async def _ended(self, awaited: asyncio.Future[Any]) -> None:
        while not awaited.done():
            try:
                await asyncio.wait({awaited})
            except asyncio.CancelledError:
                self._was_cancelled = True


def _name(task: Any) -> str:
    return getattr(task, "task_name", "its compensation")
