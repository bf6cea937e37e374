"""What `carillon new` refuses, and that it never touches what is there."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from carillon.cli import new


def everything(folder: Path) -> dict[str, str]:
    return {str(path): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "one lower-case word"),
        ("Billing", "one lower-case word"),
        ("my_domain", "one lower-case word"),
        ("two words", "one lower-case word"),
        ("../billing", "one lower-case word"),
        ("9lives", "one lower-case word"),
        ("b" * 21, "one lower-case word"),
        ("class", "Python's own word"),
        ("calendar", "Python's own word"),
        ("rabbit", "the platform's own variables"),
        ("public", "the platform's own variables or schemas"),
        ("carillon", "the platform's own variables"),
        ("sqlalchemy", "a package that is installed here"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_the_reason(tmp_path, capsys, name: str, reason: str) -> None:
    code = new.run(name, tmp_path)

    assert code == 2
    assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_an_installed_service_is_refused(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("carillon.cli.installed.names", lambda: ["billing"])

    assert new.run("billing", tmp_path) == 2
    assert "a service that is installed here" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["billing", "billing/README.md"])
def test_what_is_there_is_never_written_over(tmp_path, capsys, what: str) -> None:
    (tmp_path / what).parent.mkdir(exist_ok=True)
    (tmp_path / what).write_text("mine")

    assert new.run("billing", tmp_path) == 1
    assert "nothing is written over" in capsys.readouterr().err
    assert everything(tmp_path) == {str(tmp_path / what): "mine"}


def test_a_folder_that_is_not_there_is_not_made(tmp_path, capsys) -> None:
    assert new.run("billing", tmp_path / "typo") == 2
    assert "make it first" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_leaves_no_half_of_a_service(tmp_path, capsys, monkeypatch) -> None:
    write = Path.write_text

    def fills(path: Path, text: str, **how: str) -> int:
        if path.name == "store.py":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, text, **how)

    monkeypatch.setattr(Path, "write_text", fills)

    assert new.run("billing", tmp_path) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_around_the_user_and_not_around_the_service_is_left_alone(tmp_path, capsys, monkeypatch) -> None:
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    workspace = '[tool.ruff]\nline-length = 88\n\n[tool.uv.workspace]\nmembers = ["*/billing", "../elsewhere/*"]\n'
    (tmp_path / "here/pyproject.toml").write_text(workspace)
    (tmp_path / "here/docker-compose.yml").write_text("services: {migrate: {image: carillon-workspace}}")
    monkeypatch.chdir(tmp_path / "here")

    assert new.run("billing", Path("../elsewhere")) == 0

    said = capsys.readouterr().out
    assert "pip install" in said
    assert "docker compose" not in said
    assert "extend =" not in (tmp_path / "elsewhere/billing/pyproject.toml").read_text()


def test_a_project_that_cannot_be_read_is_none(tmp_path, monkeypatch) -> None:
    (tmp_path / "pyproject.toml").write_text("tool = [broken")
    monkeypatch.chdir(tmp_path)

    assert new.run("billing", Path()) == 0
    assert "extend =" not in (tmp_path / "billing/pyproject.toml").read_text()


def test_the_command_prints_what_it_wrote_and_what_to_do_next(place, tmp_path) -> None:
    made = place.command("new", "billing", "--into", str(tmp_path))

    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith(f"{tmp_path}/billing/ is a service now:\n")
    for written in everything(tmp_path / "billing"):
        assert Path(written).name in made.stdout
    for what in ("# Install it", "# Test it", "# Submit to it"):
        assert what in made.stdout
