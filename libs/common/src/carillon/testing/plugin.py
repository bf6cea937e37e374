"""A pytest plugin: fresh databases, Redis databases, RabbitMQ vhosts and a Chromium for the tests that ask for them.

Use it with `pytest_plugins = ["carillon.testing.plugin"]`. Nothing is looked for or started before a test asks; what
was started is stopped at the end, which may come by Ctrl-C or SIGTERM. Where pytest-xdist runs tests in several
processes, all of them use what the first one found or started; only a private RabbitMQ belongs to one of them.
"""

from __future__ import annotations

import os
import secrets
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from carillon.testing import parallel, termination
from carillon.testing.chromium import Chromium
from carillon.testing.rabbitmq import RabbitMQ
from carillon.testing.servers import SessionServers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from carillon.testing.rabbitmq_node import Node


class Need(Protocol):
    """What some tests cannot do without, and what cannot be had on every machine."""

    #: Why there is none, once that is known.
    missing: str | None

    def find(self) -> str | None:
        """Where it is, or None, and then `missing` says why."""

    def hand_over(self) -> dict[str, Any]:
        """What was found, for `take_over` in another process of this session; JSON takes it."""

    def take_over(self, found: dict[str, Any]) -> None:
        """Use what another process found."""

    def stop(self) -> None:
        """Stop what was started."""


@dataclass
class Suite:
    """The tests that share a marker and a need."""

    name: str
    need: Need
    #: Asking for one of these is being a test of this suite.
    fixtures: frozenset[str]
    not_run: list[str] = field(default_factory=list)

    def leave_out(self, test: str) -> None:
        """Skip a test, always with the same words."""
        self.not_run.append(test)
        pytest.skip(str(self.need.missing))


SERVERS = pytest.StashKey[SessionServers]()
RABBITMQ = pytest.StashKey[RabbitMQ]()
#: By marker.
SUITES = pytest.StashKey[dict[str, Suite]]()
#: Only in a process that gives tests to others.
CONTROLLER = pytest.StashKey[parallel.Controller]()
#: What tests may need besides the suites: the fixture that everything of a kind is made from.
ADDRESSES, PRIVATE = "test_servers", "private_rabbitmq"


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, and prepare what the session may need."""
    say = _speaker(config)
    rabbitmq = RabbitMQ(say)
    config.stash[SERVERS] = SessionServers()
    config.stash[RABBITMQ] = rabbitmq
    config.stash[SUITES] = {
        "rabbitmq": Suite("RabbitMQ", rabbitmq, frozenset({"rabbit_url", "rabbit_prefix", PRIVATE})),
        "browser": Suite("browser", Chromium(say), frozenset({"chromium"})),
    }
    for marker, suite in config.stash[SUITES].items():
        asked = " or ".join(sorted(suite.fixtures))
        config.addinivalue_line(
            "markers", f"{marker}: of the {suite.name} suite; added to every test that asks for {asked}"
        )
    config.addinivalue_line("markers", "long(seconds): about how long a file takes; the longest are begun first")
    config.addinivalue_line("markers", "last: a file that is begun when no other is left, because it needs the cores")
    _take_part(config)


def _take_part(config: pytest.Config) -> None:
    """Be one of several test processes, where pytest-xdist started them or is about to."""
    if hasattr(config, "workerinput"):
        worker = parallel.Worker(config, _needs, partial(_take_over, config), partial(_not_run, config))
        config.pluginmanager.register(worker, "carillon-worker")
    elif getattr(config.option, "tx", None) and config.option.dist != "no" and not config.option.collectonly:
        config.stash[CONTROLLER] = parallel.Controller(partial(_hand_over, config))
        config.pluginmanager.register(config.stash[CONTROLLER], "carillon-controller")


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `--numprocesses auto` means; pytest-xdist's own answer would come first, and knows no bounds."""
    return parallel.processes()


def _speaker(config: pytest.Config) -> Callable[[str], None]:
    def say(line: str) -> None:
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        capture = config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            if reporter:
                reporter.ensure_newline()
                reporter.write_line(line)

    return say


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of each suite, before `-m` is applied."""
    for item in items:
        for marker, suite in config.stash[SUITES].items():
            if suite.fixtures.intersection(getattr(item, "fixturenames", ())):
                item.add_marker(marker)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Get what is needed before the first test, so that an installation counts against no test's time limit."""
    if session.config.option.collectonly or session.testsfailed:
        return
    termination.heed()
    if hasattr(session.config, "workerinput"):
        return
    needs = _needs(session.items)
    for marker, suite in session.config.stash[SUITES].items():
        if marker in needs:
            suite.need.find()
    if PRIVATE in needs:
        session.config.stash[RABBITMQ].private()


def _needs(items: Iterable[pytest.Item]) -> set[str]:
    """What these tests ask for: the names of their markers and fixtures."""
    words: set[str] = set()
    for item in items:
        words.update(mark.name for mark in item.iter_markers())
        words.update(getattr(item, "fixturenames", ()))
    return words


def _hand_over(config: pytest.Config, needs: Iterable[str]) -> dict[str, Any]:
    """Get what tests in other processes need, and say where it is."""
    found: dict[str, Any] = {}
    for marker, suite in config.stash[SUITES].items():
        if marker in needs:
            suite.need.find()
            found[marker] = suite.need.hand_over()
    if PRIVATE in needs:
        config.stash[RABBITMQ].provide()
    if ADDRESSES in needs:
        found[ADDRESSES] = config.stash[SERVERS].hand_over()
    return found


def _take_over(config: pytest.Config, found: dict[str, Any]) -> None:
    """Use what the controller found."""
    for marker, suite in config.stash[SUITES].items():
        if marker in found:
            suite.need.take_over(found[marker])
    if ADDRESSES in found:
        config.stash[SERVERS].take_over(found[ADDRESSES])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Start a node of our own in the process that needs it, and before its first test's time begins to run."""
    if PRIVATE in getattr(item, "fixturenames", ()):
        item.config.stash[RABBITMQ].private()
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what needs something that is not to be had."""
    termination.heed()
    for marker, suite in item.config.stash[SUITES].items():
        if item.get_closest_marker(marker) and suite.need.find() is None:
            suite.leave_out(item.nodeid)


def _suites_not_run(config: pytest.Config) -> list[Suite]:
    return [suite for suite in config.stash.get(SUITES, {}).values() if suite.not_run]


def _not_run(config: pytest.Config) -> dict[str, dict[str, Any]]:
    """By marker: what this process left out, and what was missing."""
    suites = config.stash[SUITES].items()
    return {
        marker: {"tests": suite.not_run, "missing": suite.need.missing} for marker, suite in suites if suite.not_run
    }


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop what was started, after the last fixture; on CI a suite that did not run is a failure."""
    if (controller := session.config.stash.get(CONTROLLER, None)) is not None:
        for marker, left_out in controller.not_run().items():
            suite = session.config.stash[SUITES][marker]
            suite.not_run += left_out["tests"]
            suite.need.missing = left_out["missing"]
    for suite in session.config.stash[SUITES].values():
        suite.need.stop()
    session.config.stash[SERVERS].stop()
    if _suites_not_run(session.config) and os.environ.get("CI") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Say as the very last words what did not run and how to get it."""
    not_run, reporter = _suites_not_run(config), config.pluginmanager.get_plugin("terminalreporter")
    if not_run and reporter is not None:
        for suite in not_run:
            reporter.write_line(
                f"The {suite.name} suite did not run ({len(suite.not_run)} tests): {suite.need.missing}.", yellow=True
            )
        if os.environ.get("CI"):
            reporter.write_line("With CI set this is a failure.", red=True)


@pytest.fixture(scope="session")
def test_servers(request: pytest.FixtureRequest) -> SessionServers:
    """The session's PostgreSQL and Redis, for tests that need more than the addresses below."""
    return request.config.stash[SERVERS]


@pytest.fixture(scope="session")
def new_database(test_servers: SessionServers) -> Iterator[Callable[..., str]]:
    """A function that makes databases, from a template where one is named; they go at the end of the session."""
    made: list[str] = []

    def create(template: str = "template0") -> str:
        made.append(test_servers.create_database(template))
        return made[-1]

    yield create
    for url in made:
        test_servers.drop_database(url)


@pytest.fixture(scope="module")
def database_url(test_servers: SessionServers) -> Iterator[str]:
    """An empty database for the tests of one module."""
    url = test_servers.create_database()
    yield url
    test_servers.drop_database(url)


@pytest.fixture
def redis_url(test_servers: SessionServers) -> Iterator[str]:
    """An empty Redis database for one test."""
    url = test_servers.claim_redis()
    yield url
    test_servers.release_redis(url)


@pytest.fixture(scope="session")
def rabbitmq_session(request: pytest.FixtureRequest) -> RabbitMQ:
    """The session's RabbitMQ."""
    return request.config.stash[RABBITMQ]


@pytest.fixture(scope="module")
def rabbit_url(rabbitmq_session: RabbitMQ) -> Iterator[str]:
    """A vhost for the tests of one module; the server's own where we may not make one: use `rabbit_prefix` too."""
    vhost = rabbitmq_session.create_vhost()
    yield vhost or str(rabbitmq_session.find())
    if vhost is not None:
        rabbitmq_session.delete_vhost(vhost)


@pytest.fixture
def rabbit_prefix(rabbitmq_session: RabbitMQ, rabbit_url: str) -> Iterator[str]:
    """A first word for the queues and exchanges of one test."""
    prefix = f"t{secrets.token_hex(5)}"
    yield prefix
    if rabbit_url == rabbitmq_session.find():
        rabbitmq_session.delete_queues(prefix)


@pytest.fixture(scope="session")
def private_rabbitmq(request: pytest.FixtureRequest, rabbitmq_session: RabbitMQ) -> Node:
    """A RabbitMQ that no other session uses, for tests that restart and wipe it."""
    node = rabbitmq_session.private()
    if node is None:
        request.config.stash[SUITES]["rabbitmq"].leave_out(request.node.nodeid)
        raise AssertionError  # pragma: no cover - the line above skips
    return node


@pytest.fixture(scope="session")
def chromium(request: pytest.FixtureRequest) -> str:
    """The path of a Chromium that shows pages; start it with `carillon.testing.chromium.flags`."""
    return str(request.config.stash[SUITES]["browser"].need.find())
