"""The variables of orders, read by `app.py` only."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class OrdersSettings(BaseSettings):
    """How orders runs."""

    model_config = SettingsConfigDict(env_prefix="ORDERS_", env_ignore_empty=True, extra="ignore")

    #: How many runs one worker process has at once; each has one connection at a time.
    concurrency: int = Field(default=10, gt=0)
    #: Where this process answers with its health and metrics.
    port: int = Field(default=8018, ge=0, lt=65536)
    #: Which of the partners that we play do not answer, parted by commas: carrier, directory, copy.
    away: str = ""
