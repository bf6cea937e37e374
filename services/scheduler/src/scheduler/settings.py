"""The variables of the scheduler, all beginning with SCHEDULER_. Read by `app.py` only."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class SchedulerSettings(BaseSettings):
    """How late a fire may be, and where this process answers."""

    model_config = SettingsConfigDict(env_prefix="SCHEDULER_", extra="ignore")

    #: A fire time that nobody decided within so many seconds is recorded as misfired and not made up for.
    misfire_grace_seconds: int = Field(default=300, ge=1, le=3600)
    #: Where this process answers /metrics and /health.
    port: int = Field(default=8011, ge=0, le=65535)
