"""The variables of notifications, read by `app.py` only."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from notifications.mail import TLSMode

#: What each mode's port is by RFC 6409 and RFC 8314.
PORTS: dict[TLSMode, int] = {"starttls": 587, "tls": 465, "none": 25}


class NotificationsSettings(BaseSettings):
    """Where messages go, and how."""

    # Inputs stay out of error texts, for a wrong setting may stand beside a secret.
    model_config = SettingsConfigDict(
        env_prefix="NOTIFICATIONS_",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    #: The mail server; empty means: put mail into the folder below.
    smtp_host: str | None = None
    #: Empty means the port of the TLS mode: 587, 465 or 25.
    smtp_port: int | None = Field(default=None, gt=0, lt=65536)
    smtp_user: str | None = None
    smtp_password: SecretStr | None = None
    #: `starttls` demands encryption, `tls` begins with it, `none` is for a server on the same machine.
    smtp_tls: TLSMode = "starttls"
    #: Who mail comes from.
    sender: str = "carillon@localhost"
    #: Who gets reports and alerts: addresses, separated by commas.
    recipients: Annotated[list[str], NoDecode] = Field(default=["operator@localhost"], min_length=1, max_length=50)
    #: Where mail is put without a mail server; empty means `mail` below CARILLON_HOME.
    maildir: Path | None = None
    carillon_home: Path = Field(default=Path(".carillon"), validation_alias="CARILLON_HOME")
    #: How much may be attached to one mail, in bytes; many mail servers refuse 25 MB once it is encoded.
    attachments_max_bytes: int = Field(default=10_000_000, ge=0)

    #: The receiver of reports and alerts; empty means none.
    webhook_url: SecretStr | None = None
    #: `whsec_` and base64 of 24 to 64 random bytes, shared with that receiver; several, with spaces between, while it
    #: changes over. Who is called back has a secret of its own, see `notifications.callbacks`.
    webhook_secret: SecretStr | None = None
    #: Whether a receiver may be on a private or loopback address.
    webhook_allow_private: bool = False

    #: How many messages one worker process sends at once; they mostly wait.
    concurrency: int = Field(default=20, gt=0)
    #: Where this process answers with its health and metrics.
    port: int = Field(default=8016, ge=0, lt=65536)

    @field_validator("recipients", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.webhook_url is not None and self.webhook_secret is None:
            message = "webhooks are signed: with NOTIFICATIONS_WEBHOOK_URL, set NOTIFICATIONS_WEBHOOK_SECRET too"
            raise ValueError(message)
        if self.smtp_host and not {"sender", "recipients"} <= self.model_fields_set:
            message = "with NOTIFICATIONS_SMTP_HOST, set NOTIFICATIONS_SENDER and NOTIFICATIONS_RECIPIENTS too"
            raise ValueError(message)
        return self

    @property
    def folder(self) -> Path:
        """The maildir folder, as a whole path so that a log line names it usefully."""
        return (self.maildir or self.carillon_home / "mail").absolute()
