"""Which services there are, and examples among them only where they are wanted."""

from __future__ import annotations

import pytest

from carillon.cli import installed
from carillon.errors import ConfigurationError


def test_an_example_does_not_count_unless_it_is_wanted(monkeypatch) -> None:
    monkeypatch.delenv("CARILLON_EXAMPLES", raising=False)
    without = installed.names()

    monkeypatch.setenv("CARILLON_EXAMPLES", " orders, ")

    assert "backup" in without
    assert installed.names() == sorted([*without, "orders"])


def test_an_example_that_somebody_names_is_there(monkeypatch) -> None:
    monkeypatch.delenv("CARILLON_EXAMPLES", raising=False)

    assert installed.load("orders").name == "orders"


def test_an_example_that_is_not_there_is_named_beside_those_that_are(monkeypatch) -> None:
    monkeypatch.setenv("CARILLON_EXAMPLES", "oders")

    with pytest.raises(
        ConfigurationError, match="CARILLON_EXAMPLES names oders, and the examples installed are: orders"
    ):
        installed.names()


def test_wanting_an_example_that_is_not_there_stops_the_platform_before_it_starts(place) -> None:
    refused = place.command("up", CARILLON_EXAMPLES="oders")

    assert (refused.returncode, refused.stdout) == (78, "")
    assert refused.stderr.startswith("carillon: CARILLON_EXAMPLES names oders")
