"""Test files in several processes: what they need is got once and stopped last, and what did not run is said once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from carillon.testing import apt, parallel
from carillon.testing.rabbitmq import MISSING, RabbitMQ

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.long(seconds=100)

IN_TWO = ("-p", "carillon.testing.plugin", "--asyncio-mode=auto", "-n", "2", "--dist", "loadfile")

#: A machine on which nothing answers and a browser shows nothing; and who starts and tries what is noted.
BARE = """
    import os
    from pathlib import Path

    from carillon.testing import chromium, rabbitmq, servers

    NOTES = Path(__file__).with_name("notes")

    def note(what):
        with NOTES.open("a") as notes:
            notes.write(f"{what} {os.getpid()}\\n")

    def complain(program):
        note("browser")
        return "it is made of paper"

    class Node:
        url = "amqp://private/"

        def stop(self):
            note("stopped")

    def node(self):
        note("private")
        return Node()

    servers.find_redis = servers.find_postgres = lambda: None
    chromium.PROGRAMS = ("chromium",)
    chromium.shutil.which = lambda _: "chromium"
    chromium._complaint = complain
    chromium.apt.may_install = lambda: False
    rabbitmq.RabbitMQ._look = lambda self: "amqp://shared/"
    rabbitmq.RabbitMQ._own_node = node
    rabbitmq.RabbitMQ.provide = lambda self: note("provide")
"""
ASKS = """
    from conftest import note

    def test_addresses(test_servers):
        note(test_servers.postgres())
        note(test_servers.redis())

    def test_a_page(chromium):
        pass
"""
ASKS_FOR_A_NODE = """
    def test_a_node(private_rabbitmq):
        assert private_rabbitmq.url == "amqp://private/"
"""


def test_what_two_processes_need_is_got_once_and_stopped_by_who_got_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    pytester.makeconftest(BARE)
    pytester.makepyfile(test_one=ASKS, test_two=ASKS + ASKS_FOR_A_NODE)

    result = pytester.runpytest_subprocess(*IN_TWO, "--import-mode=prepend")

    result.assert_outcomes(passed=3, skipped=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.outlines[-2].startswith("The browser suite did not run (2 tests): chromium shows no page")
    assert result.outlines[-1] == "With CI set this is a failure."
    notes = [line.split() for line in (pytester.path / "notes").read_text().splitlines()]
    who = {what: {pid for word, pid in notes if word == what} for what, _ in notes}
    addresses = {what for what in who if "://" in what}
    assert sorted(urlsplit(address).scheme for address in addresses) == ["postgresql", "redis"]
    assert all(len(who[address]) == 2 for address in addresses)
    assert sorted(what for what, _ in notes if "://" not in what) == ["browser", "private", "provide", "stopped"]
    assert who["browser"] == who["provide"] != who["private"] == who["stopped"] < set.union(*who.values())
    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", urlsplit(address).port or 0), timeout=5)


SLOW_NODE = """
    import threading

    from carillon.testing import rabbitmq

    class Node:
        url = "amqp://private/"

        def stop(self):
            pass

    def node(self):
        threading.Event().wait(4)
        return Node()

    rabbitmq.RabbitMQ._look = lambda self: "amqp://shared/"
    rabbitmq.RabbitMQ._own_node = node
    rabbitmq.RabbitMQ.provide = lambda self: None
"""


def test_a_node_that_takes_long_to_start_counts_against_no_tests_time_limit(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(SLOW_NODE)
    pytester.makepyfile(test_one=ASKS_FOR_A_NODE)

    result = pytester.runpytest_subprocess(*IN_TWO, "--timeout=3")

    result.assert_outcomes(passed=1)


def test_without_rabbitmq_its_suite_is_named_once_with_the_tests_of_all_processes(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RABBIT_URL", "amqp://guest:guest@127.0.0.1:1/")
    monkeypatch.delenv("CI", raising=False)
    needs = "def test_with_a_queue(rabbit_url):\n    pass\n\ndef test_without():\n    pass\n"
    pytester.makepyfile(test_one=needs, test_two=needs)

    result = pytester.runpytest_subprocess(*IN_TWO)

    result.assert_outcomes(passed=2, skipped=2)
    assert result.ret == pytest.ExitCode.OK
    assert result.outlines[-1].startswith("The RabbitMQ suite did not run (2 tests): RABBIT_URL names a RabbitMQ")


#: Two files whose tests wait, each in its own process, until something is sent to whoever runs them.
IMPATIENT = """
    # The patience of pytest-xdist, in seconds: it kills who has not ended by then.
    from xdist.workermanage import NodeManager

    NodeManager.EXIT_TIMEOUT = 0.1
"""
WAITS = """
    import threading
    from pathlib import Path

    import pytest

    @pytest.fixture
    def server():
        yield
        # As long as a second Ctrl-C would need to break this off.
        threading.Event().wait(1)
        Path(__file__).with_suffix(".stopped").write_text("yes")

    def test_that_waits(server):
        with Path(__file__).with_suffix(".door").open() as door:
            door.read()

    def test_that_comes_after_the_end():
        pass
"""


#: pytest that heeds Ctrl-C even where these tests were started in the background of a shell, which lets them ignore it.
HEEDFUL = """
import signal, sys, pytest
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("number", "whom"), [(signal.SIGTERM, os.kill), (signal.SIGINT, os.kill), (signal.SIGINT, os.killpg)],
    ids=["told", "interrupted", "interrupted-in-a-terminal"],
)  # fmt: skip
def test_a_run_that_is_told_to_stop_lets_every_process_stop_what_it_started(
    pytester: pytest.Pytester, number: signal.Signals, whom: Callable[[int, int], None]
) -> None:
    pytester.makeconftest(IMPATIENT)
    pytester.makepyfile(test_one=WAITS, test_two=WAITS)
    doors = [pytester.path / f"test_{name}.door" for name in ("one", "two")]
    for door in doors:
        os.mkfifo(door)

    session = subprocess.Popen(
        [sys.executable, "-c", HEEDFUL, *IN_TWO], cwd=pytester.path, text=True, stdout=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    # Opening a named pipe waits for whoever opens its other end: the test of each file.
    with doors[0].open("w"), doors[1].open("w"):
        whom(session.pid, number)
        said, _ = session.communicate(timeout=100)

    assert session.returncode == pytest.ExitCode.INTERRUPTED, said
    assert all(door.with_suffix(".stopped").exists() for door in doors), said
    assert "passed" not in said


def test_the_longest_file_is_begun_first_and_the_last_one_last(pytester: pytest.Pytester) -> None:
    short = "def test_it():\n    pass\n"
    marked = "import pytest\n\npytestmark = pytest.mark.long(seconds={})\n\n" + short
    last = marked.format(300).replace("\n\n" + short, "\n\n@pytest.mark.last\n" + short)
    pytester.makepyfile(test_a=last, test_b=marked.format(30), test_c=marked.format(200), test_d=short)

    result = pytester.runpytest_subprocess(
        "-p", "carillon.testing.plugin", "-n", "1", "--dist", "loadfile", "--no-loadscope-reorder", "-v"
    )

    order = [line.split("::")[0][-4] for line in result.outlines if line.startswith("[gw0]")]
    assert order == ["c", "b", "d", "a"]


def test_who_was_told_of_a_rabbitmq_installs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[str] = []
    for name in ("programs", "container_engine"):
        monkeypatch.setattr(f"carillon.testing.rabbitmq.{name}", lambda: None)
    monkeypatch.setattr(apt, "may_install", lambda: True)
    monkeypatch.setattr(apt, "install", lambda *packages: installed.extend(packages))
    first, second = RabbitMQ(), RabbitMQ()
    monkeypatch.setattr(first, "_url", "amqp://elsewhere/")

    first.provide()
    second.take_over(json.loads(json.dumps(first.hand_over())))

    assert (second.find(), second.private(), second.missing) == ("amqp://elsewhere/", None, MISSING)
    assert installed == ["rabbitmq-server"]


@pytest.mark.parametrize(("cores", "count"), [(None, 2), (1, 2), (2, 2), (3, 3), (64, 4)])
def test_there_is_one_test_process_for_each_core_and_never_many(
    monkeypatch: pytest.MonkeyPatch, cores: int | None, count: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)

    assert parallel.processes() == count


def test_auto_means_that_many_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "processes", lambda: 11)

    assert request.config.hook.pytest_xdist_auto_num_workers(config=request.config) == 11
