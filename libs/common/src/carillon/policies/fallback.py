"""Declaring a fallback, and what it answers: from the first source that can, or what was good last."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from carillon.policies.bounds import check_name, check_span
from carillon.policies.values import check_type

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Fallback(Generic[Value]):
    """Several sources of one thing, the best first: `USERS = Fallback("users", returns=dict)`.

    ```python
    answer = await policies.fallback(USERS, key=user)(api=lambda: api.user(user), replica=lambda: replica.user(user))
    ```

    What the first source answers is fresh, and kept for `keep` as the last good value of its key. Where it fails, the
    next one is asked, and after the last one the value that was good last is taken; both are `degraded`, and neither is
    kept. A `PermanentError` is an answer (there is no such user), and so are `Cancel` and `Snooze`: they are raised.
    """

    name: str
    #: What the sources answer: JSON types, a dataclass or a pydantic model. More than 64 KiB of JSON is not kept.
    returns: type[Value]
    _: KW_ONLY
    keep: timedelta = timedelta(days=1)
    #: A source that takes longer has failed.
    timeout: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        """Refuse a fallback that could not be kept; raises `ConfigurationError`."""
        check_name("fallback", self.name)
        for name in ("keep", "timeout"):
            check_span(f"the fallback {self.name}", name, getattr(self, name))
        check_type(f"the fallback {self.name}", self.returns)


@dataclass(frozen=True, slots=True)
class Answer(Generic[Value]):
    """What a fallback answers. A task may return it: the result has these fields."""

    value: Value
    #: The source that gave it, or `last good`.
    source: str
    #: Whether it is not what the first source would say now.
    degraded: bool
    #: What each source before it failed with, in one line; None where it is not degraded.
    reason: str | None
    #: How long ago it was fresh; 0 for what a source gave now.
    age_seconds: float
