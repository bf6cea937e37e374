"""Tasks of other domains, by their name and what they return: a workflow awaits them, and imports nobody."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from carillon.errors import ConfigurationError

Result = TypeVar("Result")

_NAME = re.compile(r"[a-z][a-z0-9_]*\.[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class RemoteTask(Generic[Result]):
    """A task of another domain, such as `RemoteTask("notifications.mail_report", returns=dict)`.

    Its arguments are given by name, and checked by its owner. Raises `ConfigurationError` for a name that is none.
    """

    task_name: str
    returns: type[Result] | Any = Any

    def __post_init__(self) -> None:
        """Refuse what no task could be called."""
        if not _NAME.match(self.task_name):
            message = f"{self.task_name!r} is no task's name; say domain and function, such as 'reports.render'"
            raise ConfigurationError(message)
