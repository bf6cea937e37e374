"""The variables of the gateway, read by `app.py` only."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class GatewaySettings(BaseSettings):
    """Where the gateway listens, and whom it lets in."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", env_ignore_empty=True, extra="ignore")

    #: The port of everything the gateway serves; 0 picks a free one.
    port: int = Field(default=8000, ge=0, lt=65536)
    #: A file with the key named `local`. It is made, readable by its owner only, where it does not exist; empty means
    #: that keys are in the database already.
    key_file: Path | None = None
    #: Whether reading needs no key. Changing something always needs one.
    open_reads: bool = True
    #: A body may not be larger, in bytes. Larger data belongs in storage, with its key in the arguments.
    body_max_bytes: int = Field(default=256 * 1024, ge=1024, le=256 * 1024)
    #: The same for a body that submits many runs, each of which may still not have larger arguments than a single one.
    batch_max_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, le=4 * 1024 * 1024)
    #: A body must have arrived after this many seconds.
    body_timeout_seconds: float = Field(default=5, gt=0, le=60)
    #: No answer takes longer than this many seconds; the live stream is the exception.
    answer_timeout_seconds: float = Field(default=10, gt=0, le=120)
    #: How many listeners the live stream serves at once.
    live_listeners: int = Field(default=64, ge=1, le=10_000)
