"""The commands where no platform runs: each says in one sentence what is missing."""

from __future__ import annotations

import pytest


def test_without_a_word_the_command_prints_its_help(place) -> None:
    asked = place.command("--help")

    assert asked.returncode == 0
    assert all(command in asked.stdout for command in ("up", "serve", "migrate", "doctor", "tour", "audit"))


def test_an_unknown_service_is_named_beside_those_that_are_there(place) -> None:
    refused = place.command("serve", "bakcup")

    assert refused.returncode == 78
    assert refused.stderr.startswith("carillon: There is no service `bakcup` here; installed are: ")


def test_a_service_without_postgres_says_what_to_check(place) -> None:
    refused = place.command("serve", "backup", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")

    assert refused.returncode == 1
    assert "check DATABASE_URL" in refused.stderr


def test_migrating_without_postgres_is_one_sentence(place) -> None:
    refused = place.command("migrate", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")

    assert refused.returncode == 1
    assert refused.stderr.startswith("carillon: PostgreSQL could not be migrated")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["up", "tour"])
def test_a_setting_that_does_not_fit_is_named_without_its_value(place, command: str) -> None:
    refused = place.command(command, CARILLON_PORT="eight thousand")

    assert refused.returncode == 78
    assert "carillon_port" in refused.stderr
    assert "eight thousand" not in refused.stderr


def test_the_tour_without_a_platform_says_how_to_start_one(place) -> None:
    refused = place.command("tour", CARILLON_KEY="carillon_unknown")

    assert refused.returncode == 1
    assert "is the platform running (`make run`)?" in refused.stderr


def test_the_tour_without_a_key_says_where_it_looked(place) -> None:
    refused = place.command("tour")

    assert refused.returncode == 78
    assert f"There is no key in {place.home}/api-key" in refused.stderr


def test_the_doctor_without_a_platform_says_what_to_do_about_each_thing(place) -> None:
    examined = place.command("doctor", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")

    assert examined.returncode == 1
    assert "FAIL PostgreSQL" in examined.stdout
    assert "or set DATABASE_URL" in examined.stdout
    assert "Traceback" not in examined.stdout + examined.stderr


def test_a_home_that_is_a_file_is_one_sentence(place, tmp_path) -> None:
    (tmp_path / "home").write_text("")

    refused = place.command("up", CARILLON_HOME=str(tmp_path / "home"))

    assert refused.returncode == 1
    assert refused.stderr.startswith(f"carillon: {tmp_path}/home is not a folder")
