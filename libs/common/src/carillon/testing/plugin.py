"""A pytest plugin: fresh databases, Redis databases and RabbitMQ vhosts for the tests that ask for them.

Use it with `pytest_plugins = ["carillon.testing.plugin"]`. Nothing is looked for or started before a test asks.
"""

from __future__ import annotations

import os
import secrets
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from carillon.testing.rabbitmq import RabbitMQ
from carillon.testing.servers import SessionServers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from carillon.testing.rabbitmq_node import Node

SERVERS = pytest.StashKey[SessionServers]()
RABBITMQ = pytest.StashKey[RabbitMQ]()
NOT_RUN = pytest.StashKey[list[str]]()

#: Asking for one of these is being a RabbitMQ test.
RABBIT_FIXTURES = frozenset({"rabbit_url", "rabbit_prefix", "private_rabbitmq"})


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and prepare what the session may need."""
    config.addinivalue_line("markers", "rabbitmq: needs a RabbitMQ; added to every test that asks for one by fixture")
    config.stash[SERVERS] = SessionServers()
    config.stash[RABBITMQ] = RabbitMQ(_speaker(config))
    config.stash[NOT_RUN] = []


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
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need RabbitMQ, before `-m` is applied."""
    for item in items:
        if RABBIT_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.rabbitmq)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Get RabbitMQ before the first test, so that an installation counts against no test's time limit."""
    needed = [item for item in session.items if item.get_closest_marker("rabbitmq")]
    if not needed or session.config.option.collectonly or session.testsfailed:
        return
    rabbit = session.config.stash[RABBITMQ]
    if rabbit.find() and any("private_rabbitmq" in getattr(item, "fixturenames", ()) for item in needed):
        rabbit.private()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what needs RabbitMQ where there is none, always with the same words."""
    if item.get_closest_marker("rabbitmq"):
        rabbit = item.config.stash[RABBITMQ]
        if rabbit.find() is None:
            _leave_out(item.config, item.nodeid)


def _leave_out(config: pytest.Config, test: str) -> None:
    config.stash[NOT_RUN].append(test)
    pytest.skip(str(config.stash[RABBITMQ].missing))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop what was started; on CI a suite that did not run is a failure."""
    session.config.stash[RABBITMQ].stop()
    session.config.stash[SERVERS].stop()
    if session.config.stash[NOT_RUN] and os.environ.get("CI") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Say as the very last words what did not run and how to get it."""
    not_run, reporter = config.stash.get(NOT_RUN, []), config.pluginmanager.get_plugin("terminalreporter")
    if not_run and reporter is not None:
        reporter.write_line(
            f"The RabbitMQ suite did not run ({len(not_run)} tests): {config.stash[RABBITMQ].missing}.", yellow=True
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
        _leave_out(request.config, request.node.nodeid)
        raise AssertionError  # pragma: no cover - the line above skips
    return node
