"""The variables of analytics, read by `app.py` only."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class AnalyticsSettings(BaseSettings):
    """How analytics counts."""

    model_config = SettingsConfigDict(env_prefix="ANALYTICS_", env_ignore_empty=True, extra="ignore")

    #: How far behind the last count runs may still change, in hours; a run that is retried for longer is counted late.
    late_hours: int = Field(default=48, ge=1)
    #: How many runs one worker process has at once; they wait for one another's locks, so few are enough.
    concurrency: int = Field(default=4, gt=0)
    #: Where this process answers with its health and metrics.
    port: int = Field(default=8015, ge=0, lt=65536)
