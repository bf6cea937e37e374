"""What an examination looks at, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from carillon.cli.settings import CommandSettings
from carillon.settings import PlatformSettings


@dataclass(frozen=True)
class Patient:
    """Whose health is asked about."""

    command: CommandSettings
    platform: PlatformSettings

    @property
    def database_url(self) -> str:
        """PostgreSQL's address."""
        return self.platform.database_url.get_secret_value()


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. What is not well comes with advice."""

    state: Literal["well", "doubtful", "ill"]
    subject: str
    seen: str
    advice: str = ""

    @classmethod
    def well(cls, subject: str, seen: str) -> Self:
        """Nothing to do."""
        return cls("well", subject, seen)

    @classmethod
    def doubtful(cls, subject: str, seen: str, advice: str) -> Self:
        """It works; somebody should know."""
        return cls("doubtful", subject, seen, advice)

    @classmethod
    def ill(cls, subject: str, seen: str, advice: str) -> Self:
        """It does not work until somebody does something."""
        return cls("ill", subject, seen, advice)
