"""The variables of the command line: where the platform's folder is, and where its gateway answers."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from carillon.embedded.addresses import noted_addresses
from carillon.settings import PlatformSettings


class CommandSettings(BaseSettings):
    """Read once by each command."""

    model_config = SettingsConfigDict(env_file=None, env_ignore_empty=True, extra="ignore", hide_input_in_errors=True)

    #: The folder that holds the data, the logs and the key of `carillon up`.
    carillon_home: Path = Path(".carillon")
    #: Where the gateway of `carillon up` answers.
    carillon_port: int = Field(default=8000, gt=0, lt=65536)
    #: The gateway of a running platform; unset is the one of `carillon up` on this machine.
    carillon_url: str | None = None
    #: The API key; unset is the one that `carillon up` made.
    carillon_key: SecretStr | None = None
    #: Servers of one's own in place of the embedded ones.
    database_url: SecretStr | None = None
    redis_url: SecretStr | None = None
    storage_url: str | None = None

    @property
    def home(self) -> Path:
        """The folder, as a whole path."""
        return self.carillon_home.expanduser().absolute()

    @property
    def url(self) -> str:
        """The gateway's address, without a slash at its end."""
        return (self.carillon_url or f"http://127.0.0.1:{self.carillon_port}").rstrip("/")

    @property
    def key_file(self) -> Path:
        """Where `carillon up` keeps the key it made."""
        return self.home / "api-key"


def platform_settings(settings: CommandSettings) -> PlatformSettings:
    """Where the servers are: as the environment names them, or those that `carillon up` runs in the state folder."""
    for name, address in noted_addresses(settings.home).items():
        os.environ.setdefault(name, address)
    return PlatformSettings()
