"""The variables that every Carillon process understands. Each process's `app.py` reads them once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class PlatformSettings(BaseSettings):
    """Where the shared servers are, and how this process should behave towards them."""

    model_config = SettingsConfigDict(env_file=None, extra="ignore", hide_input_in_errors=True)

    #: PostgreSQL, as `postgresql://user:password@host:port/database`.
    database_url: SecretStr = SecretStr("postgresql://postgres@127.0.0.1:5432/carillon")
    #: Redis or Valkey; empty means: work without one.
    redis_url: SecretStr | None = None
    #: RabbitMQ, as `amqp://user:password@host:port/vhost`. Where this and `rabbit_host` are unset, PostgreSQL is the
    #: transport.
    rabbit_url: SecretStr | None = None
    rabbit_host: str | None = None
    rabbit_port: int = 5672
    rabbit_user: str = "guest"
    rabbit_password: SecretStr = SecretStr("guest")
    rabbit_vhost: str = "/"
    #: First word of every queue and exchange name of this installation.
    rabbit_queue_prefix: str = Field(default="carillon", pattern=r"^[a-z][a-z0-9_-]{0,40}$")

    #: Where results are read from: `postgres` (the ledger itself) or `redis` (faster, with the ledger behind it).
    task_result_backend: Literal["redis", "postgres"] = "postgres"
    task_redis_result_ttl_seconds: int = Field(default=3600, gt=0)
    task_redis_key_prefix: str = "taskiq:result:"
    #: How long ended runs stay in the ledger, in hours; 168 is a week, and the most is a hundred years.
    task_tracking_retention_hours: int = Field(default=168, gt=0, le=876_600)

    #: Where files are kept: a folder, or an obstore URL such as `s3://bucket/prefix`.
    storage_url: str = str(Path(".carillon/storage"))

    #: The address on which every process serves health and metrics, and the gateway everything else. Beyond loopback,
    #: put a proxy that speaks TLS before the gateway.
    carillon_host: str = "127.0.0.1"
    #: `json` for machines, `console` for people; unset decides by whether standard output is a terminal.
    carillon_log_format: Literal["json", "console"] | None = None
    carillon_log_level: Literal["debug", "info", "warning", "error"] = "info"
    #: How long a worker that is told to stop waits for the runs it executes, in seconds; the rest is handed back.
    #: Whoever stops it should have five more seconds of patience.
    carillon_drain_seconds: float = Field(default=20.0, ge=0, le=3600, allow_inf_nan=False)

    def amqp_url(self) -> str | None:
        """The broker's URL, or None when PostgreSQL carries the runs."""
        if self.rabbit_url is not None:
            return self.rabbit_url.get_secret_value()
        if self.rabbit_host is None:
            return None
        user, password = quote(self.rabbit_user, safe=""), quote(self.rabbit_password.get_secret_value(), safe="")
        vhost = quote(self.rabbit_vhost, safe="")
        return f"amqp://{user}:{password}@{self.rabbit_host}:{self.rabbit_port}/{vhost}"


def sqlalchemy_url(database_url: str) -> str:
    """The same address in the spelling that SQLAlchemy wants for asyncpg."""
    return "postgresql+asyncpg://" + database_url.partition("://")[2]
