"""`carillon up` from its first start to its last process."""

from __future__ import annotations

import urllib.request
from pathlib import Path

SERVICES = ["analytics", "backup", "gateway", "notifications", "reports", "scheduler"]


def test_every_service_is_a_process_of_its_own(up) -> None:
    lines = [" ".join(child.cmdline()) for child in up.descendants()]

    serving = sorted(line.rsplit(" ", 1)[1] for line in lines if "carillon.cli.serve" in line)

    assert serving == SERVICES


def test_the_first_lines_say_how_to_use_it_and_the_key_works(up, place) -> None:
    key = (place.home / "api-key").read_text().strip()
    url = f"http://127.0.0.1:{place.port}"
    request = urllib.request.Request(f"{url}/api/v1/tasks", headers={"Authorization": f"Bearer {key}"})

    with urllib.request.urlopen(request, timeout=10) as answer:
        status = answer.status

    assert status == 200
    assert f'curl -H "Authorization: Bearer $(cat {place.home}/api-key)" {url}/api/v1/tasks' in up.text
    assert key not in up.text


def test_a_killed_service_is_started_again(up) -> None:
    victim = up.child("carillon.cli.serve scheduler")

    victim.kill()

    up.said("scheduler died (signal SIGKILL), starting it again in 0.5 s")
    victim.wait(10)
    up.has("carillon.cli.serve scheduler")


def test_a_killed_valkey_is_started_again(up) -> None:
    victim = up.child("valkey-server")

    victim.kill()

    up.said("Valkey died, starting it again")
    victim.wait(10)
    up.has("valkey-server")


def test_the_tour_goes_through_every_domain_and_links_to_the_report(up, place) -> None:
    toured = place.command("tour")

    assert toured.returncode == 0, toured.stderr
    assert "of 4 domains" in toured.stdout
    assert f"http://127.0.0.1:{place.port}/files/reports/" in toured.stdout


def test_the_tour_with_a_wrong_key_says_so(up, place) -> None:
    toured = place.command("tour", CARILLON_KEY=f"carillon_{'x' * 43}")

    assert toured.returncode == 78
    assert "does not know this key" in toured.stderr


def test_the_doctor_finds_everything_well(up, place) -> None:
    examined = place.command("doctor")

    assert examined.returncode == 0, examined.stdout
    assert "Everything is well." in examined.stdout


def test_a_second_start_in_the_same_folder_says_who_is_there(up, place) -> None:
    refused = place.command("up", CARILLON_PORT=str(place.port + 1 if place.port < 65000 else place.port - 1))

    assert refused.returncode == 1
    assert f"(process {up.process.pid}) already runs on {place.home}" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_port_in_use_is_one_sentence(up, place, tmp_path: Path) -> None:
    refused = place.command("up", CARILLON_HOME=str(tmp_path))

    assert refused.returncode == 78
    assert refused.stderr == (
        f"carillon: Port {place.port} cannot be used (Address already in use); "
        "stop what uses it, or set CARILLON_PORT.\n"
    )
