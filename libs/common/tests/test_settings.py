"""The settings of every process: where they are read, and that no password leaves them by accident."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from carillon.settings import PlatformSettings, sqlalchemy_url

SECRETS = {
    "DATABASE_URL": "postgresql://app:hunter2@db/carillon",
    "REDIS_URL": "redis://:hunter2@cache/0",
    "RABBIT_URL": "amqp://app:hunter2@mq/",
    "RABBIT_PASSWORD": "hunter2",
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in PlatformSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def secrets(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def test_without_variables_postgresql_carries_the_runs_and_keeps_the_results():
    settings = PlatformSettings()

    assert settings.amqp_url() is None
    assert settings.redis_url is None
    assert settings.task_result_backend == "postgres"


def test_no_password_is_in_what_a_person_or_a_log_sees_of_the_settings(secrets):
    settings = PlatformSettings()

    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"

    assert settings.database_url.get_secret_value() == SECRETS["DATABASE_URL"]
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("RABBIT_PORT", "hunter2", "rabbit_port"),
        ("RABBIT_QUEUE_PREFIX", "hunter2.#", "rabbit_queue_prefix"),
        ("TASK_RESULT_BACKEND", "hunter2", "task_result_backend"),
        ("TASK_REDIS_RESULT_TTL_SECONDS", "0", "task_redis_result_ttl_seconds"),
        ("TASK_TRACKING_RETENTION_HOURS", "-1", "task_tracking_retention_hours"),
        ("TASK_TRACKING_RETENTION_HOURS", "9000000", "task_tracking_retention_hours"),
        ("CARILLON_LOG_LEVEL", "hunter2", "carillon_log_level"),
        ("CARILLON_DRAIN_SECONDS", "nan", "carillon_drain_seconds"),
        ("CARILLON_DRAIN_SECONDS", "-1", "carillon_drain_seconds"),
    ],
)
def test_a_wrong_value_is_named_by_its_variable_and_not_repeated(secrets, monkeypatch, name, value, says):
    monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError) as refused:
        PlatformSettings()

    assert says in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_the_parts_of_the_broker_s_address_are_put_together_and_escaped(monkeypatch):
    for name, value in {"HOST": "mq", "USER": "a@b", "PASSWORD": "p/w:#", "VHOST": "/orders", "PORT": "5673"}.items():
        monkeypatch.setenv(f"RABBIT_{name}", value)

    assert PlatformSettings().amqp_url() == "amqp://a%40b:p%2Fw%3A%23@mq:5673/%2Forders"


def test_the_whole_address_wins_over_its_parts(monkeypatch):
    monkeypatch.setenv("RABBIT_HOST", "mq")
    monkeypatch.setenv("RABBIT_URL", "amqp://other/")

    assert PlatformSettings().amqp_url() == "amqp://other/"


def test_sqlalchemy_gets_the_same_address_with_its_own_scheme():
    for scheme in ("postgres", "postgresql", "postgresql+asyncpg"):
        assert sqlalchemy_url(f"{scheme}://u:p@h:5/d?x=1") == "postgresql+asyncpg://u:p@h:5/d?x=1"
