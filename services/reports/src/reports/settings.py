"""The variables that only reports understands. `app.py` reads them once."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ReportsSettings(BaseSettings):
    """How one reports process should behave."""

    model_config = SettingsConfigDict(env_prefix="REPORTS_", env_file=None, extra="ignore")

    #: Runs at once in one worker process. Each renders in a child of about 200 MB, so memory sets the limit.
    concurrency: int = Field(default=2, ge=1, le=64)
    #: Seconds one rendering may take; an ordinary one takes two to three, a machine under load many times that.
    rendering_timeout_seconds: int = Field(default=120, ge=5, le=600)
    #: Where this process answers /metrics and /health; 0 takes any free port.
    port: int = Field(default=0, ge=0, le=65535)
