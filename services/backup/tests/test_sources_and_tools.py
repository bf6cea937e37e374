"""A source is read from configuration only, and gets tools that are new enough for its server."""

from __future__ import annotations

from pathlib import Path

import pytest

from backup.app import configured_sources
from backup.errors import MissingToolError
from backup.settings import BackupSettings
from backup.sources import parse_source
from backup.tools import Tools, closest, tools_for
from carillon.errors import ConfigurationError
from carillon.settings import PlatformSettings


def test_a_source_is_read_from_its_url_without_showing_its_password() -> None:
    source = parse_source("orders", "postgresql://us%40er:p%3Aa%2Fss@db:6543/shop?sslmode=require")

    assert (source.host, source.port, source.user, source.database) == ("db", 6543, "us@er", "shop")
    assert (source.password, source.sslmode) == ("p:a/ss", "require")
    assert "p:a/ss" not in f"{source!r} {source}"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("Orders", "postgresql://u:canary@h/db"),
        ("../x", "postgresql://u:canary@h/db"),
        ("orders", "mysql://u:canary@h/db"),
        ("orders", "postgresql://u:canary@h:notaport/db"),
        ("orders", "postgresql://u:canary@h"),
        ("orders", "postgresql:///db"),
        ("orders", "postgresql://u:canary@h/db?options=-cx"),
        ("orders", "postgresql://u:canary@h/db?sslmode=maybe"),
        ("orders", "postgresql://u:canary@h/carillon_scratch_00000000000000000000000000000000"),
        ("orders", "postgresql://u:canary%0Ax@h/db"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused_without_its_password(name: str, url: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        parse_source(name, url)

    assert "canary" not in str(refusal.value)


def test_the_platform_is_always_a_source_and_cannot_be_redirected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUP_SOURCES", '{"orders": "postgresql://u@h/orders"}')
    settings = PlatformSettings(database_url="postgresql://u@h/own")

    sources = configured_sources(BackupSettings(), settings)
    monkeypatch.setenv("BACKUP_SOURCES", '{"platform": "postgresql://u@h/other"}')
    with pytest.raises(ConfigurationError, match="may not name 'platform'"):
        configured_sources(BackupSettings(), settings)

    assert {name: source.database for name, source in sources.items()} == {"platform": "own", "orders": "orders"}


def test_the_closest_tools_that_are_not_older_are_chosen() -> None:
    found = [Tools(Path(f"/{major}"), f"{major}.1", major) for major in (18, 14, 15, 16)]

    assert closest(found, 15).major == 15
    assert closest(found, 17).major == 18
    assert closest(found, 9).major == 14


def test_missing_tools_are_named_with_what_to_install() -> None:
    with pytest.raises(MissingToolError, match=r"14\.1 in /14.*apt-get install postgresql-client-18"):
        closest([Tools(Path("/14"), "14.1", 14)], 18)


async def test_a_folder_without_tools_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(MissingToolError, match="none at all"):
        await tools_for(15, tmp_path)
