"""Wrong settings are named at start, without the secrets beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from notifications.settings import NotificationsSettings


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NotificationsSettings.model_fields:
        monkeypatch.delenv(f"NOTIFICATIONS_{name.upper()}", raising=False)
    monkeypatch.delenv("CARILLON_HOME", raising=False)


def test_without_settings_mail_goes_below_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CARILLON_HOME", str(tmp_path))

    settings = NotificationsSettings()

    assert settings.folder == tmp_path / "mail"
    assert settings.recipients == ["operator@localhost"]


def test_recipients_are_separated_by_commas_and_empty_means_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFICATIONS_RECIPIENTS", "ann@example.org, bob@example.org,")
    monkeypatch.setenv("NOTIFICATIONS_SMTP_PORT", "")

    settings = NotificationsSettings()

    assert settings.recipients == ["ann@example.org", "bob@example.org"]
    assert settings.smtp_port is None


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"WEBHOOK_URL": "https://u:hunter2@example.org/"}, "NOTIFICATIONS_WEBHOOK_SECRET"),
        ({"SMTP_HOST": "mail.example.org", "SMTP_PASSWORD": "hunter2"}, "NOTIFICATIONS_SENDER"),
    ],
)
def test_half_a_setting_is_refused_without_showing_secrets(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"NOTIFICATIONS_{name}", value)

    with pytest.raises(ValidationError, match=named) as caught:
        NotificationsSettings()

    assert "hunter2" not in str(caught.value)
