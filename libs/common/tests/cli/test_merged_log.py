"""What JSON lines look like to a person."""

from __future__ import annotations

import io
import json

import pytest

from carillon.cli.merged_log import MergedLog


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(out: io.StringIO) -> MergedLog:
    return MergedLog(out)


def line(**facts: object) -> bytes:
    return json.dumps({"event": "dump stored", "level": "info", "timestamp": "2026-11-24T10:00:00Z"} | facts).encode()


def test_a_line_has_service_level_event_and_facts(log, out) -> None:
    log.line("backup", line(source="orders", size_bytes=5, title="two words"))

    assert out.getvalue()[9:] == 'backup        info    dump stored source=orders size_bytes=5 title="two words"\n'


def test_a_line_that_is_not_json_is_shown_as_it_is(log, out) -> None:
    log.line("backup", b"Segmentation fault\n")

    assert out.getvalue().endswith("backup        info    Segmentation fault\n")


def test_an_error_shows_its_kind_and_place(log, out) -> None:
    frames = [{"filename": "/src/dumps.py", "lineno": 7}]
    log.line("backup", line(exception=[{"exc_type": "KeyError", "exc_value": "'orders'", "frames": frames}]))

    assert "KeyError: 'orders' (/src/dumps.py:7)" in out.getvalue()


def test_control_characters_do_not_reach_the_terminal(log, out) -> None:
    log.line("backup", line(source="\x1b[31mred"))

    assert "\x1b" not in out.getvalue()


def test_a_very_long_line_is_cut(log, out) -> None:
    log.line("backup", line(source="x" * 10_000))

    assert len(out.getvalue()) < 2_100


def test_empty_lines_and_broken_bytes_do_no_harm(log, out) -> None:
    log.line("backup", b"\n")
    log.line("backup", b"\xff\xfe\n")

    assert len(out.getvalue().splitlines()) == 1
