"""What `deploy/Dockerfile` and `.dockerignore` promise, read from the files."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
BUILD, IMAGE = re.split(r"^FROM \$\{BASE\}$", DOCKERFILE, flags=re.MULTILINE)
MEMBERS = sorted(
    str(path.parent.relative_to(ROOT))
    for glob in ("libs", "services", "examples")
    for path in ROOT.glob(f"{glob}/*/pyproject.toml")
)


def test_any_engine_builds_it():
    assert not re.search(r"^#\s*syntax\s*=", DOCKERFILE, re.MULTILINE | re.IGNORECASE)
    assert "--mount" not in DOCKERFILE
    assert "<<" not in DOCKERFILE


@pytest.mark.parametrize("member", MEMBERS)
def test_dependencies_are_installed_before_the_code_of_any_member_is_there(member):
    assert f"COPY {member}/pyproject.toml {member}/\n" in BUILD
    assert BUILD.index(f"COPY {member}/pyproject.toml") < BUILD.index("uv sync") < BUILD.index("COPY libs libs")


def test_what_is_installed_is_what_is_locked_and_no_python_is_downloaded():
    syncs = re.findall(r"uv sync .*", BUILD)

    assert len(syncs) == 3
    assert all("--locked" in sync and "--no-dev" in sync for sync in syncs)
    assert "UV_PYTHON_DOWNLOADS=never" in BUILD


def test_the_shared_layer_does_not_know_the_service():
    assert BUILD.index("--package carillon-common") < BUILD.index("ARG SERVICE")


def test_the_image_holds_the_environment_only_and_runs_as_nobody_special():
    copies = re.findall(r"^COPY .*$", IMAGE, re.MULTILINE)

    assert copies == ["COPY --from=build /opt/carillon /opt/carillon"]
    assert re.findall(r"^USER (.*)$", IMAGE, re.MULTILINE) == ["10001:10001"]


def test_the_service_itself_gets_the_signal_to_stop():
    assert "\nSTOPSIGNAL SIGTERM\n" in IMAGE
    assert re.search(r'^CMD \["sh", "-c", "exec carillon serve ', IMAGE, re.MULTILINE)


def test_the_builder_is_sent_what_is_named_and_nothing_else():
    lines = [
        line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"
    ]
    allowed = {line[1:] for line in lines if line.startswith("!")}

    assert lines[0] == "*"
    assert allowed == {"pyproject.toml", "uv.lock", "libs", "services", "examples"}


def test_every_member_of_the_workspace_is_below_what_the_builder_is_sent():
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]["workspace"]

    assert workspace["members"] == ["libs/*", "services/*", "examples/*"]
