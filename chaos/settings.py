"""What the processes of a scenario are told, through their environment."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class ChaosSettings(BaseSettings):
    """Read once, by the process's own module."""

    model_config = SettingsConfigDict(env_prefix="CHAOS_", extra="ignore")

    #: Where the journals of the scenario lie.
    folder: Path
    #: The database of the effects, which is not Carillon's.
    effects_url: str = ""
    #: The negative control that this process plays; empty for none.
    mutation: str = ""
    #: Whether runs may ask for their worker's death at a named point.
    crashes: bool = False
    #: Whether a middleware raises in every hook.
    raising_middleware: bool = False
    #: Which version of the domains this worker is: 2 knows a task and an argument more.
    version: int = 1
    #: Seconds of silence after which a worker counts as lost; 0 leaves what Carillon ships with.
    silence: float = 0.0

    @property
    def executions(self) -> Path:
        """What the tasks write about themselves."""
        return self.folder / "executions.jsonl"

    @property
    def clients(self) -> Path:
        """What the client asked for and heard."""
        return self.folder / "client.jsonl"

    @property
    def start_signal(self) -> Path:
        """A file that appears when the client is to begin."""
        return self.folder / "begin"

    @property
    def tally(self) -> Path:
        """Faults that processes did to themselves."""
        return self.folder / "tally.jsonl"
